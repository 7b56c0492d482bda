/** What is done with a table's columns and rows: which are figures, order, search, CSV. Knows nothing of the page. */
import type { Cell, Table } from './document';
import { clean, elide, isProse, number } from './words';

export interface Column {
  name: string;
  index: number;
  numeric: boolean;
  prose: boolean;
  /** In characters. */
  width: number;
  /** Largest value, where the cells are drawn as bars; 0 where they are not. */
  bar: number;
  text: (value: Cell) => string;
}

export type Direction = 'ascending' | 'descending';

const NAME_WIDTH = 44;
const PROSE_WIDTH = 52;
/** Figures of which more is more: times, shares, sizes, counts. Others (dB, scales, ranks) say nothing as a bar. */
const AMOUNT = /(^|_)(ms|us|s|percent|bytes|kb|mb|kib|mib|cycles|macs|flops|parameters|per_s|mse|points|score|count|ops)(_left|_right)?$/;

export function columns(table: Table): Column[] {
  return table.columns.map((name, index) => column(name, index, table.rows));
}

function column(name: string, index: number, rows: Cell[][]): Column {
  const known = rows.map(row => row[index] ?? null).filter(value => value !== null);
  const numeric = known.length > 0 && known.every(value => isFigure(value));
  const figures = numeric ? known.map(value => toNumber(value)) : [];
  const whole = figures.every(value => !Number.isFinite(value) || Number.isInteger(value));
  const text = (value: Cell): string => cellText(value, name, numeric, whole);
  let [longest, prose] = [0, false];
  for (const value of known) {
    const words = text(value);
    longest = Math.max(longest, words.length);
    prose ||= !numeric && isProse(words);
  }
  const least = Math.min(name.length + 3, 26);
  const limit = prose ? PROSE_WIDTH : NAME_WIDTH;
  const finite = figures.filter(Number.isFinite);
  const amount = numeric && AMOUNT.test(name) && finite.length > 1 && finite.every(value => value >= 0);
  return {
    name,
    index,
    numeric,
    prose,
    width: Math.max(least, Math.min(longest, limit)) + 2,
    bar: amount ? Math.max(...finiteExtent(finite)) : 0,
    text
  };
}

function finiteExtent(values: number[]): [number, number] {
  return [values.reduce((a, b) => Math.min(a, b), Infinity), values.reduce((a, b) => Math.max(a, b), 0)];
}

/** A number, or an infinity, which JSON writes as text. */
function isFigure(value: Cell): boolean {
  return typeof value === 'number' || value === 'inf' || value === '-inf';
}

export function toNumber(value: Cell | undefined): number {
  if (value === 'inf' || value === '-inf') {
    return value === 'inf' ? Infinity : -Infinity;
  }
  return typeof value === 'number' ? value : NaN;
}

function cellText(value: Cell, name: string, numeric: boolean, whole: boolean): string {
  if (value === null) {
    return numeric ? 'n/a' : '';
  }
  if (numeric) {
    const figure = toNumber(value);
    if (figure === Infinity && name === 'sqnr_db') {
      return 'exact';
    }
    return name === 'cosine' && Number.isFinite(figure) ? figure.toFixed(6) : number(figure, whole);
  }
  if (typeof value === 'boolean') {
    return value ? 'yes' : 'no';
  }
  return typeof value === 'number' ? number(value, Number.isInteger(value)) : clean(value);
}

export function shortened(column: Column, words: string): string {
  return column.prose ? elide(words, 400) : elide(words, NAME_WIDTH);
}

/** Compare two cells upwards: numbers before booleans before text, text with its digits as numbers. */
export function compareCells(a: Cell, b: Cell): number {
  const [left, right] = [rank(a), rank(b)];
  if (left !== right) {
    return left - right;
  }
  if (left === 0) {
    const [x, y] = [toNumber(a), toNumber(b)];
    return x < y ? -1 : x > y ? 1 : 0;
  }
  if (left === 1) {
    return Number(a) - Number(b);
  }
  return COLLATOR.compare(String(a), String(b));
}

const COLLATOR = new Intl.Collator('en', { numeric: true, sensitivity: 'base' });

function rank(value: Cell): number {
  return isFigure(value) && !Number.isNaN(toNumber(value)) ? 0 : typeof value === 'boolean' ? 1 : 2;
}

/** Positions of the rows in the order of a column; what is missing is last in both directions, equals keep their order. */
export function ordered(rows: Cell[][], positions: number[], column: number, direction: Direction): number[] {
  const sign = direction === 'ascending' ? 1 : -1;
  return [...positions].sort((a, b) => {
    const [left, right] = [rows[a]?.[column] ?? null, rows[b]?.[column] ?? null];
    if (left === null || right === null) {
      return Number(left === null) - Number(right === null) || a - b;
    }
    return sign * compareCells(left, right) || a - b;
  });
}

/** Positions of the rows that have every word of a search in one of their cells, whatever its case. */
export function found(rows: Cell[][], query: string): number[] {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  const all = rows.map((_, position) => position);
  if (words.length === 0) {
    return all;
  }
  return all.filter(position => {
    const cells = (rows[position] ?? []).map(value => (value === null ? '' : String(value).toLowerCase()));
    return words.every(word => cells.some(cell => cell.includes(word)));
  });
}

/** Comma-separated values as RFC 4180 has them, figures in full. */
export function csv(names: string[], rows: Cell[][]): string {
  return [names, ...rows].map(row => row.map(field).join(',')).join('\r\n') + '\r\n';
}

function field(value: Cell): string {
  const words = value === null ? '' : String(value);
  return /[",\r\n]/.test(words) || words !== words.trim() ? `"${words.replaceAll('"', '""')}"` : words;
}
