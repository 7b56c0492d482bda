/** Oracle: the format as docs/formats.md states it; a bad document is refused in words and never throws. */
import { describe, expect, it } from 'vitest';

import { isRefusal, readDocument, type ViewDocument } from '../../src/view/document';
import { link } from '../../src/view/links';
import { marks } from '../../src/view/marks';
import { picturesOf } from '../../src/view/pictures';

const good = {
  format: 2,
  kind: 'profile',
  title: 'net on htp',
  notes: ['a note'],
  recipe: { step: 'profile' },
  facts: [['size_kb', 12]],
  tables: [{ title: 'ops', columns: ['op', 'time_ms', 'source'], rows: [['a', 1, 'host'], ['b', null, 'host'], ['c', 3]], help: { op: 'name' } }],
  charts: [{ title: 'time', type: 'bars', table: 0, label: 'op', value: 'time_ms' }],
  graph: {
    title: 'g',
    colours: ['time_ms'],
    nodes: [
      { id: 7, name: 'a', type: 'Conv', backend: 'htp', values: { time_ms: 1 }, facts: { macs: 12 } },
      { id: 9, name: 'c', type: 'Relu', backend: null, values: { time_ms: null }, facts: {} }
    ],
    edges: [[7, 9, 't', '1x3 float32']]
  }
};

const read = (data: unknown): ViewDocument => {
  const made = readDocument(data);
  expect(isRefusal(made)).toBe(false);
  return made as ViewDocument;
};

describe('a document', () => {
  it('is read whole, short rows filled', () => {
    const made = read(good);
    expect(made.tables[0]!.rows[2]).toEqual(['c', 3, null]);
    expect(made.graph!.edges[0]).toEqual({ from: 7, to: 9, tensor: 't', shape: '1x3 float32' });
    expect(made.graph!.nodes[0]!.facts).toEqual([['macs', '12']]);
  });

  it('of format 1 has tables only', () => {
    const { charts: _c, graph: _g, facts: _f, ...old } = good;
    expect(read({ ...old, format: 1 }).graph).toBeNull();
  });

  it.each([99, 0, '2', null, undefined])('of format %s is refused by its format', format => {
    expect(readDocument({ ...good, format })).toMatchObject({ refused: 'format' });
  });

  it.each([
    [null],
    ['text'],
    [[1, 2]],
    [{ ...good, tables: 'x' }],
    [{ ...good, tables: [{ columns: ['a'], rows: [5] }] }],
    [{ ...good, graph: { nodes: [{ id: 'x' }], edges: [] } }],
    [{ ...good, graph: { nodes: [{ id: 1 }, { id: 1 }], edges: [] } }],
    [{ ...good, graph: { nodes: [{ id: 1 }], edges: [[1, 2, 't', null]] } }],
    [{ ...good, facts: [5] }]
  ])('that is damaged is refused in words: %#', data => {
    expect(readDocument(data)).toMatchObject({ refused: 'damaged', what: expect.stringMatching(/\w/) });
  });

  it('leaves out charts of columns that are not there', () => {
    const charts = [{ type: 'bars', table: 4, label: 'op', value: 'time_ms' }, { type: 'bars', table: 0, label: 'op', value: 'x' }];
    expect(read({ ...good, charts }).charts).toEqual([]);
  });
});

describe('rows and nodes', () => {
  it('find each other by the column of names', () => {
    const made = read(good);
    const links = link(made.graph, made.tables);
    expect(links.nodes[0]).toEqual([7, null, 9]);
    expect(links.rows.get(9)).toEqual({ table: 0, row: 2 });
  });
});

describe('marks', () => {
  it('are the rows that have a figure, each with its source', () => {
    const made = read(good);
    const drawn = marks(made.charts[0]!, made.tables[0]!);
    expect(drawn.marks.map(mark => [mark.label, mark.value, mark.source])).toEqual([['a', 1, 'host'], ['c', 3, '']]);
    expect([drawn.total, drawn.largest, drawn.scattered]).toEqual([3, false, false]);
  });

  it('of many rows are the largest', () => {
    const rows = Array.from({ length: 100 }, (_, k) => [`op${k}`, k, 'device']);
    const made = read({ ...good, tables: [{ title: 't', columns: ['op', 'time_ms', 'source'], rows }] });
    const drawn = marks(made.charts[0]!, made.tables[0]!);
    expect([drawn.largest, drawn.marks[0]!.value, drawn.marks.length]).toEqual([true, 99, 30]);
  });
});

describe('pictures of the HTML form', () => {
  it('are PNGs that it holds, and nothing else', () => {
    const html =
      '<img src="data:image/png;base64,iVBORw0=" alt="chart"><img src="https://example.org/x.png">' +
      '<img src="data:image/svg+xml;base64,AAAA"><script>window.hit = 1</script><img src=x onerror="window.hit = 1">';
    expect(picturesOf(html)).toEqual([{ address: 'data:image/png;base64,iVBORw0=', words: 'chart' }]);
    expect('hit' in window).toBe(false);
  });
});
