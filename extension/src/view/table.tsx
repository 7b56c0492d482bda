/** A table of thousands of rows: sorted, searched, walked by keys and copied; only the rows that are seen are in the page. */
import { Clipboard } from '@jupyterlab/apputils';
import { useVirtualizer } from '@tanstack/react-virtual';
import { memo, useDeferredValue, useEffect, useId, useMemo, useRef, useState } from 'react';

import { columns, csv, found, ordered, shortened, toNumber, type Column, type Direction } from './columns';
import type { Cell, Table } from './document';
import { isSource, present, sourceLabel, sourceMeaning } from './sources';
import { useWords } from './translation';
import { clean } from './words';

interface Props {
  table: Table;
  /** Chosen row, by its position in the document. */
  selected: number | null;
  onSelect: (row: number | null) => void;
  /** Leads from a row to its node; null where the graph has none. */
  toNode: ((row: number) => (() => void) | null) | null;
  /** Rows are looked for from this number on. */
  searchFrom?: number;
}

const ROW = 28;
const OVERSCAN = 12;

export function DataTable({ table, selected, onSelect, toNode, searchFrom = 8 }: Props): JSX.Element {
  const words = useWords();
  const id = useId();
  const box = useRef<HTMLDivElement>(null);
  const [sort, setSort] = useState<{ column: number; direction: Direction } | null>(null);
  const [query, setQuery] = useState('');
  const asked = useDeferredValue(query);
  const [copied, setCopied] = useState(false);
  const cols = useMemo(() => columns(table), [table]);
  const matching = useMemo(() => found(table.rows, asked), [table, asked]);
  const shown = useMemo(
    () => (sort ? ordered(table.rows, matching, sort.column, sort.direction) : matching),
    [table, matching, sort]
  );
  const rows = useVirtualizer({
    count: shown.length,
    getScrollElement: () => box.current,
    estimateSize: () => ROW,
    overscan: OVERSCAN,
    scrollPaddingStart: ROW + 4,
    initialRect: { width: 600, height: 420 }
  });
  const measured = useMemo(() => cols.some(each => each.prose), [cols]);
  const at = selected === null ? -1 : shown.indexOf(selected);
  useEffect(() => {
    if (at !== -1) {
      rows.scrollToIndex(at, { align: 'auto' });
    }
  }, [at]);
  useEffect(() => setCopied(false), [shown]);

  const toggle = (column: number): void =>
    setSort(now =>
      now?.column !== column
        ? { column, direction: 'ascending' }
        : now.direction === 'ascending'
          ? { column, direction: 'descending' }
          : null
    );
  const keys: Record<string, number> = {
    ArrowDown: at + 1,
    ArrowUp: Math.max(0, at - 1),
    PageDown: at + 12,
    PageUp: Math.max(0, at - 12),
    Home: 0,
    End: shown.length - 1
  };
  const items = rows.getVirtualItems();
  const before = items[0]?.start ?? 0;
  const after = rows.getTotalSize() - (items[items.length - 1]?.end ?? 0);
  const sources = useMemo(
    () => present(cols.filter(each => isSource(each.name)).flatMap(each => table.rows.map(row => row[each.index]))),
    [cols, table]
  );
  const jump = selected === null ? null : (toNode?.(selected) ?? null);
  const total = table.rows.length;
  const count =
    shown.length === total
      ? words._n('%1 row', '%1 rows', total, total.toLocaleString('en-US'))
      : words.__('%1 of %2 rows', shown.length.toLocaleString('en-US'), total.toLocaleString('en-US'));

  return (
    <div className="qnb-Table">
      <div className="qnb-Toolbar">
        {total >= searchFrom && (
          <input
            type="search"
            value={query}
            placeholder={words.__('Search rows')}
            aria-label={words.__('Search the rows of %1', table.title)}
            onChange={event => setQuery(event.target.value)}
          />
        )}
        <span className="qnb-Note" role="status">
          {count}
        </span>
        <span className="qnb-Toolbar-space" />
        {toNode && (
          <button type="button" disabled={!jump} onClick={() => jump?.()}>
            {words.__('Show in graph')}
          </button>
        )}
        {total > 0 && (
          <button
            type="button"
            title={words.__('The rows as they are listed now')}
            onClick={() => {
              Clipboard.copyToSystem(
                csv(
                  table.columns,
                  shown.map(row => table.rows[row]!)
                )
              );
              setCopied(true);
            }}
          >
            {copied ? words.__('Copied') : words.__('Copy as CSV')}
          </button>
        )}
      </div>
      <div className="qnb-Table-scroll" ref={box}>
        <table
          role="grid"
          aria-label={table.title}
          aria-rowcount={shown.length + 1}
          aria-colcount={cols.length}
          aria-activedescendant={items.some(item => item.index === at) ? `${id}-${at}` : undefined}
          tabIndex={0}
          data-lm-suppress-shortcuts="true"
          style={{ width: `calc(${cols.reduce((sum, each) => sum + each.width, 0)}ch + ${cols.length}em)` }}
          onKeyDown={event => {
            const to = keys[event.key];
            if (to !== undefined && event.target === event.currentTarget && shown.length > 0) {
              event.preventDefault();
              onSelect(shown[Math.min(shown.length - 1, to)] ?? null);
            } else if (event.key === 'Enter' && event.target === event.currentTarget) {
              jump?.();
            }
          }}
        >
          <colgroup>
            {cols.map(each => (
              <col key={each.index} style={{ width: `calc(${each.width}ch + 1em)` }} />
            ))}
          </colgroup>
          <thead>
            <tr aria-rowindex={1}>
              {cols.map(each => (
                <Head
                  key={each.index}
                  column={each}
                  help={table.help[each.name]}
                  direction={sort?.column === each.index ? sort.direction : undefined}
                  onClick={() => toggle(each.index)}
                />
              ))}
            </tr>
          </thead>
          <tbody>
            {before > 0 && <Gap height={before} columns={cols.length} />}
            {items.map(item => {
              const row = shown[item.index]!;
              return (
                <Row
                  key={row}
                  id={`${id}-${item.index}`}
                  row={row}
                  index={item.index}
                  cells={table.rows[row]!}
                  columns={cols}
                  selected={row === selected}
                  measure={measured ? rows.measureElement : undefined}
                  onSelect={onSelect}
                  toNode={toNode}
                />
              );
            })}
            {after > 0 && <Gap height={after} columns={cols.length} />}
          </tbody>
        </table>
        {total === 0 && <p className="qnb-Note">{words.__('no rows')}</p>}
      </div>
      <Sources sources={sources} />
    </div>
  );
}

interface RowProps extends Pick<Props, 'onSelect' | 'toNode'> {
  id: string;
  row: number;
  index: number;
  cells: Cell[];
  columns: Column[];
  selected: boolean;
  /** Takes the height of a row, where sentences are wrapped in it. */
  measure: ((element: HTMLTableRowElement | null) => void) | undefined;
}

/** Kept as it is while others scroll into the page. */
const Row = memo(function Row(props: RowProps): JSX.Element {
  const { id, row, index, cells, columns, selected, measure, onSelect, toNode } = props;
  return (
    <tr
      id={id}
      ref={measure}
      data-index={index}
      aria-rowindex={index + 2}
      aria-selected={selected}
      onClick={() => onSelect(selected ? null : row)}
      onDoubleClick={() => toNode?.(row)?.()}
    >
      {columns.map(each => (
        <Value key={each.index} column={each} value={cells[each.index] ?? null} />
      ))}
    </tr>
  );
});

/** What each source means, below the figures that are marked with it. */
function Sources({ sources }: { sources: string[] }): JSX.Element | null {
  const words = useWords();
  return sources.length === 0 ? null : (
    <ul className="qnb-Sources">
      {sources.map(source => (
        <li key={source}>
          <b>{sourceLabel(clean(source))}</b> {sourceMeaning(source, words)}
        </li>
      ))}
    </ul>
  );
}

function Gap({ height, columns }: { height: number; columns: number }): JSX.Element {
  return (
    <tr aria-hidden="true" className="qnb-Table-gap">
      <td colSpan={columns} style={{ height }} />
    </tr>
  );
}

function Head(props: {
  column: Column;
  help: string | undefined;
  direction: Direction | undefined;
  onClick: () => void;
}): JSX.Element {
  const words = useWords();
  const { column, help, direction } = props;
  const arrow = direction === undefined ? '' : direction === 'ascending' ? ' ▲' : ' ▼';
  return (
    <th scope="col" aria-sort={direction ?? 'none'} className={column.numeric ? 'qnb-mod-number' : undefined}>
      <button type="button" onClick={props.onClick} title={help ?? words.__('Sort by %1', column.name)}>
        {clean(column.name)}
        <span aria-hidden="true">{arrow}</span>
      </button>
    </th>
  );
}

function Value({ column, value }: { column: Column; value: Cell }): JSX.Element {
  const trans = useWords();
  const words = column.text(value);
  if (isSource(column.name) && words !== '') {
    return (
      <td title={sourceMeaning(words, trans)} className={words === 'device' ? undefined : 'qnb-mod-marked'}>
        {sourceLabel(words)}
      </td>
    );
  }
  const figure = toNumber(value);
  if (column.bar > 0 && Number.isFinite(figure)) {
    return (
      <td className="qnb-mod-number qnb-mod-bar">
        <span className="qnb-Bar" style={{ width: `${(100 * figure) / column.bar}%` }} aria-hidden="true" />
        <span className="qnb-Bar-text">{words}</span>
      </td>
    );
  }
  const short = shortened(column, words);
  return (
    <td
      className={column.numeric ? 'qnb-mod-number' : column.prose ? 'qnb-mod-prose' : undefined}
      title={short === words ? undefined : words}
    >
      {short}
    </td>
  );
}
