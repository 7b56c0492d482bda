/** Oracle: what a layered drawing is: no two nodes overlap, all edges go down, and no edge runs through a node of a net. */
import { describe, expect, it } from 'vitest';

import { contrast, CATEGORIES, inkOn, SEQUENCE } from '../../src/view/colours';
import type { Graph } from '../../src/view/document';
import { search } from '../../src/view/graph/graph';
import { layout, NODE_HEIGHT, NODE_WIDTH, type Layout } from '../../src/view/graph/layout';
import { firstWay, paint, ways } from '../../src/view/graph/paint';

type Edges = [number, number][];

/** Repeatable numbers from 0 to 1: mulberry32. */
function random(seed: number): () => number {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

function acyclic(count: number, seed: number): Edges {
  const next = random(seed);
  return Array.from({ length: count - 1 }, (_, k): Edges => {
    const node = k + 1;
    const from = Math.max(0, node - 1 - Math.floor(next() ** 3 * 20));
    return next() < 0.3 ? [[from, node], [Math.floor(next() * node), node]] : [[from, node]];
  }).flat();
}

function overlaps(made: Layout): number {
  const rows = new Map<number, number[]>();
  made.y.forEach((y, node) => rows.set(y, [...(rows.get(y) ?? []), made.x[node]!]));
  let count = 0;
  for (const row of rows.values()) {
    row.sort((a, b) => a - b);
    row.forEach((x, k) => (count += k > 0 && x - row[k - 1]! < NODE_WIDTH - 1e-6 ? 1 : 0));
  }
  return count;
}

describe('layout', () => {
  it.each([1, 2, 3, 4, 5])('of any net has no overlaps, and edges that go down (%i)', seed => {
    const edges = acyclic(300, seed);
    const made = layout(300, edges);
    expect(overlaps(made)).toBe(0);
    edges.forEach(([a, b], k) => {
      expect(made.y[b]! - made.y[a]!).toBeGreaterThanOrEqual(NODE_HEIGHT);
      const heights = [made.y[a]!, ...made.routes[k]!.filter((_, j) => j % 2 === 1), made.y[b]!];
      expect(heights).toEqual([...heights].sort((x, y) => x - y));
    });
    expect(Math.min(...made.x)).toBeGreaterThanOrEqual(NODE_WIDTH / 2 - 1e-6);
    expect(Math.max(...made.x)).toBeLessThanOrEqual(made.width - NODE_WIDTH / 2 + 1e-6);
  });

  it('leads long edges past the nodes', () => {
    const edges = acyclic(200, 9);
    const made = layout(200, edges);
    made.routes.forEach(route => {
      for (let k = 0; k < route.length; k += 2) {
        made.y.forEach((y, node) => {
          if (y === route[k + 1]) {
            expect(Math.abs(made.x[node]! - route[k]!)).toBeGreaterThan(NODE_WIDTH / 2);
          }
        });
      }
    });
  });

  it('draws a chain straight', () => {
    const made = layout(50, Array.from({ length: 49 }, (_, k): [number, number] => [k, k + 1]));
    expect(Math.max(...made.x) - Math.min(...made.x)).toBeLessThan(1e-6);
  });

  it('does not drift aside over thousands of layers', () => {
    const edges: Edges = [];
    let node = 0;
    while (node < 1990) {
      const [start, end] = [node, node + 6];
      for (let k = start; k < end; k++) {
        edges.push([k, k + 1]);
      }
      edges.push([start, end]);
      node = end;
    }
    const made = layout(node + 1, edges);
    expect(made.width).toBeLessThan(4 * NODE_WIDTH);
  });

  it('takes cycles, loops, parallel edges, lone nodes and nothing at all', () => {
    expect(layout(0, []).height).toBe(0);
    const made = layout(6, [[0, 1], [1, 2], [2, 0], [3, 3], [0, 1], [0, 1]]);
    expect(overlaps(made)).toBe(0);
    expect([...made.x, ...made.y].every(Number.isFinite)).toBe(true);
  });

  it('takes a hub that everything hangs on, without a point for each crossing', () => {
    const edges: Edges = Array.from({ length: 3000 }, (_, k): Edges => [[k, k + 1], [0, k + 1]]).flat();
    const made = layout(3001, edges);
    expect(made.routes.reduce((sum, route) => sum + route.length / 2, 0)).toBeLessThanOrEqual(40_000);
    expect(overlaps(made)).toBe(0);
  });
});

const graph: Graph = {
  title: 'g',
  colours: ['time_ms', 'backend'],
  nodes: Array.from({ length: 12 }, (_, k) => ({
    id: k,
    name: `n${k}`,
    type: `T${k}`,
    group: null,
    backend: k % 2 === 0 ? 'htp' : null,
    values: { time_ms: k === 3 ? null : k * k },
    facts: []
  })),
  edges: []
};

describe('colours', () => {
  it('are offered as the document names them', () => {
    expect(ways(graph)).toEqual(['time_ms', 'backend', 'type']);
  });

  it('are at first those that tell ops apart', () => {
    const rare = { ...graph, nodes: graph.nodes.map((node, k) => ({ ...node, values: { time_ms: k === 0 ? 5 : null } })) };
    expect(firstWay(graph, ways(graph))).toBe('time_ms');
    expect(firstWay(rare, ways(rare))).toBe('type');
  });

  it('go from least to most, and what is not known has its own', () => {
    const made = paint(graph, 'time_ms', 'not known', 'others');
    expect([made.of[0], made.of[11], made.of[3]]).toEqual([0, SEQUENCE.length - 1, SEQUENCE.length]);
    expect(made.legend[made.legend.length - 1]!.label).toBe('not known (1)');
  });

  it('gather rare op types', () => {
    const made = paint(graph, 'type', 'not known', 'others');
    expect(made.legend).toHaveLength(CATEGORIES.length);
    expect(made.legend[made.legend.length - 1]!.label).toBe('others (5)');
  });

  it('can be written on', () => {
    for (const colour of [...CATEGORIES, ...SEQUENCE]) {
      expect(contrast(colour, inkOn(colour))).toBeGreaterThanOrEqual(4.5);
    }
    expect(contrast('#000000', '#ffffff')).toBeCloseTo(21, 6);
  });
});

describe('search of ops', () => {
  it('looks at name, type and backend', () => {
    expect(search(graph, 't11')).toEqual([11]);
    expect(search(graph, 'htp n4')).toEqual([4]);
  });
});
