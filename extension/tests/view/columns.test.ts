/** Oracles: the order that a person expects, written out; RFC 4180; the figures of qnb.display.style's own tests. */
import { describe, expect, it } from 'vitest';

import { columns, csv, found, ordered } from '../../src/view/columns';
import type { Cell, Table } from '../../src/view/document';
import { clean, elide, number } from '../../src/view/words';

const sorted = (values: Cell[], direction: 'ascending' | 'descending'): Cell[] => {
  const rows = values.map(value => [value]);
  return ordered(
    rows,
    rows.map((_, k) => k),
    0,
    direction
  ).map(k => values[k]!);
};

const table = (names: string[], rows: Cell[][]): Table => ({ title: 't', columns: names, rows, help: {} });

describe('order', () => {
  it('sorts numbers as numbers, and what is missing last in both directions', () => {
    expect(sorted([10, null, 9, -1], 'ascending')).toEqual([-1, 9, 10, null]);
    expect(sorted([10, null, 9, -1], 'descending')).toEqual([10, 9, -1, null]);
  });

  it('sorts names with their digits as numbers', () => {
    expect(sorted(['conv10', 'conv9', 'Add', 'conv1'], 'ascending')).toEqual(['Add', 'conv1', 'conv9', 'conv10']);
  });

  it('sets numbers before booleans before text', () => {
    expect(sorted(['b', 2, true, null, 1, false], 'ascending')).toEqual([1, 2, false, true, 'b', null]);
  });

  it('takes infinities, which JSON writes as text, for numbers', () => {
    expect(sorted([5, 'inf', '-inf', 0], 'ascending')).toEqual(['-inf', 0, 5, 'inf']);
  });

  it('keeps equal rows in their order', () => {
    const rows: Cell[][] = [[1, 'a'], [0, 'b'], [1, 'c'], [1, 'd']];
    expect(ordered(rows, [0, 1, 2, 3], 0, 'descending')).toEqual([0, 2, 3, 1]);
  });
});

describe('search', () => {
  const rows: Cell[][] = [['Conv_1', 3, null], ['Relu_1', 40, 'htp'], ['Conv_2', 5, 'cpu']];
  it('finds rows with every word, whatever its case', () => {
    expect(found(rows, '')).toEqual([0, 1, 2]);
    expect(found(rows, 'conv')).toEqual([0, 2]);
    expect(found(rows, 'CONV cpu')).toEqual([2]);
    expect(found(rows, '40')).toEqual([1]);
    expect(found(rows, 'null')).toEqual([]);
  });
});

describe('CSV', () => {
  it('quotes as RFC 4180 says, and writes figures in full', () => {
    expect(csv(['a', 'b,c'], [['x"y', 0.1234567891], ['two\nlines', null], [' edge', true]])).toBe(
      'a,"b,c"\r\n"x""y",0.1234567891\r\n"two\nlines",\r\n" edge",true\r\n'
    );
  });
});

describe('columns', () => {
  it('draws bars for amounts only', () => {
    const made = columns(table(['time_ms', 'sqnr_db', 'rank', 'percent', 'delta_ms'], [[1, 30, 1, 5, -1], [4, 40, 2, 95, 1]]));
    expect(made.map(each => each.bar)).toEqual([4, 0, 0, 95, 0]);
  });

  it('writes what is not known, and an exact match, in words', () => {
    const [sqnr] = columns(table(['sqnr_db'], [[30.5], ['inf'], [null]]));
    expect([30.5, 'inf', null].map(value => sqnr!.text(value))).toEqual(['30.5', 'exact', 'n/a']);
  });

  it('keeps ten thousand rows quick', () => {
    const rows = Array.from({ length: 10_000 }, (_, k): Cell[] => [`op_${k}`, (k * 7919) % 10_007, 'host']);
    const start = performance.now();
    columns(table(['op', 'time_ms', 'source'], rows));
    ordered(rows, found(rows, 'op_'), 1, 'descending');
    expect(performance.now() - start).toBeLessThan(2000);
  });
});

describe('words', () => {
  it('writes numbers as the tables in Python do', () => {
    expect([0, 1234.5678, 0.00123, 12.345, 1e-7, -3.14159, 1e15].map(value => number(value))).toEqual([
      '0', '1,235', '0.00123', '12.3', '1.00e-07', '-3.14', '1.00e+15'
    ]);
    expect(number(1234567, true)).toBe('1,234,567');
  });

  it('takes control and direction characters out of names', () => {
    expect(clean('a\u202Eb\u0007c\nd  e')).toBe('abc d e');
  });

  it('shortens in the middle', () => {
    expect(elide('/model/layer1/conv/Conv_output_0', 11)).toBe('/mode…put_0');
  });
});
