/** Which row of which table is which node of the graph: told by the column that says the most names of nodes. */
import type { Graph, Table } from './document';

export interface Links {
  /** For each table, the node of each row. */
  nodes: (number | null)[][];
  /** Table and row of a node; of several tables the first. */
  rows: Map<number, { table: number; row: number }>;
}

export function link(graph: Graph | null, tables: Table[]): Links {
  const ids = new Map<string, number>();
  for (const node of graph?.nodes ?? []) {
    if (node.name && !ids.has(node.name)) {
      ids.set(node.name, node.id);
    }
  }
  const rows = new Map<number, { table: number; row: number }>();
  const nodes = tables.map((table, number) => {
    const hits = table.columns.map((_, k) => table.rows.filter(row => ids.has(String(row[k]))).length);
    const best = hits.indexOf(hits.reduce((a, b) => Math.max(a, b), 0));
    return table.rows.map((row, position) => {
      const id = hits[best] ? ids.get(String(row[best])) : undefined;
      if (id !== undefined && !rows.has(id)) {
        rows.set(id, { table: number, row: position });
      }
      return id ?? null;
    });
  });
  return { nodes, rows };
}
