/**
 * The view document: what a result's report and `GET qnb/view` say, checked before it is shown.
 *
 * All of it is other people's data: what is not of the right form is refused in words or left out, never believed.
 */
export const MIME = 'application/vnd.qnb.report+json';
/** Format 1 had no charts and no graph; the rest is the same. */
export const FORMATS: readonly number[] = [1, 2];

export type Cell = string | number | boolean | null;

export interface Table {
  title: string;
  columns: string[];
  rows: Cell[][];
  help: Record<string, string>;
}

export interface Chart {
  title: string;
  type: 'bars' | 'points';
  table: number;
  label: string;
  value: string;
  low?: string;
  high?: string;
  group?: string;
  source?: string;
}

export interface GraphNode {
  id: number;
  name: string;
  type: string;
  group: string | null;
  backend: string | null;
  values: Record<string, number | null>;
  facts: [string, string][];
}

export interface GraphEdge {
  from: number;
  to: number;
  tensor: string;
  shape: string | null;
}

export interface Graph {
  title: string;
  colours: string[];
  nodes: GraphNode[];
  edges: GraphEdge[];
}

export interface ViewDocument {
  kind: string;
  title: string;
  notes: string[];
  recipe: Record<string, unknown> | null;
  facts: [string, Cell][];
  tables: Table[];
  charts: Chart[];
  graph: Graph | null;
}

/** Why a document can't be shown: it is of another format, or none at all. */
export type Refusal = { refused: 'format'; format: string } | { refused: 'damaged'; what: string };

type Plain = Record<string, unknown>;

class Damaged extends Error {}

/** Read a document; a refusal where it can't be read. */
export function readDocument(data: unknown): ViewDocument | Refusal {
  if (!isPlain(data)) {
    return { refused: 'damaged', what: 'it is not an object' };
  }
  if (typeof data.format !== 'number' || !FORMATS.includes(data.format)) {
    return { refused: 'format', format: text(data.format ?? 'none') };
  }
  try {
    const tables = list(data.tables, 'tables').map(table);
    return {
      kind: text(data.kind ?? ''),
      title: text(data.title ?? ''),
      notes: list(data.notes, 'notes').map(text),
      recipe: isPlain(data.recipe) ? data.recipe : null,
      facts: list(data.facts, 'facts').map(fact),
      tables,
      charts: list(data.charts, 'charts').flatMap(each => chart(each, tables)),
      graph: data.graph === undefined || data.graph === null ? null : graph(data.graph)
    };
  } catch (error) {
    if (error instanceof Damaged) {
      return { refused: 'damaged', what: error.message };
    }
    throw error;
  }
}

export function isRefusal(read: ViewDocument | Refusal): read is Refusal {
  return 'refused' in read;
}

function table(value: unknown, index: number): Table {
  const where = `table ${index + 1}`;
  const plain = object(value, where);
  const columns = list(plain.columns, `${where}: columns`).map(text);
  const rows = list(plain.rows, `${where}: rows`).map(row =>
    columns.map((_, k) => cell(list(row, `${where}: a row`)[k]))
  );
  const help = isPlain(plain.help) ? plain.help : {};
  return {
    title: text(plain.title ?? ''),
    columns,
    rows,
    help: Object.fromEntries(Object.entries(help).map(([name, words]) => [name, text(words)]))
  };
}

/** A chart of a table or column that is not there is left out: the table says the same. */
function chart(value: unknown, tables: Table[]): Chart[] {
  const plain = object(value, 'a chart');
  const of = tables[typeof plain.table === 'number' ? plain.table : -1];
  const column = (name: string): string | undefined => {
    const said = plain[name];
    return typeof said === 'string' && of?.columns.includes(said) ? said : undefined;
  };
  const [label, shown] = [column('label'), column('value')];
  if (!of || label === undefined || shown === undefined || (plain.type !== 'bars' && plain.type !== 'points')) {
    return [];
  }
  return [
    {
      title: text(plain.title ?? ''),
      type: plain.type,
      table: plain.table as number,
      label,
      value: shown,
      low: column('low'),
      high: column('high'),
      group: column('group'),
      source: column('source')
    }
  ];
}

function graph(value: unknown): Graph {
  const plain = object(value, 'the graph');
  const ids = new Set<number>();
  const nodes = list(plain.nodes, 'the graph: nodes').map((each, index): GraphNode => {
    const node = object(each, `node ${index + 1}`);
    if (typeof node.id !== 'number' || ids.has(node.id)) {
      throw new Damaged(`node ${index + 1}: its id is no number, or another node has it`);
    }
    ids.add(node.id);
    const values = isPlain(node.values) ? node.values : {};
    return {
      id: node.id,
      name: text(node.name ?? ''),
      type: text(node.type ?? ''),
      group: typeof node.group === 'string' ? node.group : null,
      backend: typeof node.backend === 'string' ? node.backend : null,
      values: Object.fromEntries(
        Object.entries(values).map(([name, figure]) => [name, typeof figure === 'number' ? figure : null])
      ),
      facts: isPlain(node.facts)
        ? Object.entries(node.facts).map(([name, said]): [string, string] => [name, text(said)])
        : []
    };
  });
  const edges = list(plain.edges, 'the graph: edges').map((each, index): GraphEdge => {
    const [from, to, tensor, shape] = list(each, `edge ${index + 1}`);
    if (typeof from !== 'number' || typeof to !== 'number' || !ids.has(from) || !ids.has(to)) {
      throw new Damaged(`edge ${index + 1} names a node that is not there`);
    }
    return { from, to, tensor: text(tensor ?? ''), shape: typeof shape === 'string' ? shape : null };
  });
  return { title: text(plain.title ?? ''), colours: list(plain.colours, 'the graph: colours').map(text), nodes, edges };
}

function fact(value: unknown): [string, Cell] {
  const [name, said] = list(value, 'a fact');
  return [text(name ?? ''), cell(said)];
}

/** What can stand in a cell; lists and objects as the JSON that they are. */
function cell(value: unknown): Cell {
  if (value === undefined || value === null || typeof value === 'boolean' || typeof value === 'number') {
    return value ?? null;
  }
  return text(value);
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : (JSON.stringify(value) ?? '');
}

function list(value: unknown, where: string): unknown[] {
  if (value === undefined || value === null) {
    return [];
  }
  if (!Array.isArray(value)) {
    throw new Damaged(`${where}: it is not a list`);
  }
  return value;
}

function object(value: unknown, where: string): Plain {
  if (!isPlain(value)) {
    throw new Damaged(`${where}: it is not an object`);
  }
  return value;
}

function isPlain(value: unknown): value is Plain {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
