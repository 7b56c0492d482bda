/** What a chart draws of its table: figures, their groups and sources. Knows nothing of pixels. */
import { toNumber } from './columns';
import type { Chart, Table } from './document';
import { isSource, present } from './sources';

export interface Mark {
  row: number;
  label: string;
  value: number;
  low: number | null;
  high: number | null;
  group: number;
  groupName: string;
  source: string;
}

export interface Drawn {
  marks: Mark[];
  groups: string[];
  sources: string[];
  /** Rows of the table. */
  total: number;
  /** Whether only the largest are drawn. */
  largest: boolean;
  /** Points of which there are too many for a line each, or that stand against a second figure. */
  scattered: boolean;
  numericLabels: boolean;
}

export const MOST_LINES = 30;
const MOST_POINTS = 2000;

export function marks(chart: Chart, table: Table): Drawn {
  const at = (name: string | undefined): number => (name === undefined ? -1 : table.columns.indexOf(name));
  const source = at(chart.source) === -1 ? table.columns.findIndex(isSource) : at(chart.source);
  const [label, value, low, high, group] = [chart.label, chart.value, chart.low, chart.high, chart.group].map(at);
  const groups = new Map<string, number>();
  const all: Mark[] = [];
  table.rows.forEach((row, position) => {
    const figure = toNumber(row[value!]);
    if (!Number.isFinite(figure)) {
      return;
    }
    const name = group === -1 ? '' : String(row[group!] ?? '');
    if (!groups.has(name)) {
      groups.set(name, groups.size);
    }
    all.push({
      row: position,
      label: String(row[label!] ?? ''),
      value: figure,
      low: finite(toNumber(row[low!])),
      high: finite(toNumber(row[high!])),
      group: groups.get(name)!,
      groupName: name,
      source: source === -1 ? '' : String(row[source] ?? '')
    });
  });
  const numericLabels =
    chart.type === 'points' && all.length > 0 && all.every(mark => typeof table.rows[mark.row]![label!] === 'number');
  const scattered = chart.type === 'points' && (numericLabels || all.length > MOST_LINES);
  const most = scattered ? MOST_POINTS : MOST_LINES;
  const cut = all.length > most;
  const kept = cut ? [...all].sort((a, b) => b.value - a.value).slice(0, most) : all;
  return {
    marks: kept,
    groups: [...groups.keys()],
    sources: present(kept.map(mark => mark.source)),
    total: table.rows.length,
    largest: cut,
    scattered,
    numericLabels
  };
}

function finite(value: number): number | null {
  return Number.isFinite(value) ? value : null;
}
