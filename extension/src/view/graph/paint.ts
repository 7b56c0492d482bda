/** Which colour a node has under each way of colouring, and the legend that says so. */
import type { GraphNode, Graph } from '../document';
import { BACKENDS, CATEGORIES, OTHER, SEQUENCE } from '../colours';
import { compact, number } from '../words';

export interface Paint {
  /** Colours in use, and the position of each node's. */
  palette: string[];
  of: Uint8Array;
  /** Whether a colour stands for more than the one before it. */
  ranked: boolean;
  legend: { colour: string; label: string }[];
}

/** `backend`, `type` and `group` are words of a node; all other ways are names of its values. */
export function isWord(way: string): way is 'backend' | 'type' | 'group' {
  return way === 'backend' || way === 'type' || way === 'group';
}

export function paint(graph: Graph, by: string, unknown: string, others: string): Paint {
  if (isWord(by)) {
    return paintWords(graph.nodes, node => node[by] ?? '', by === 'backend' ? BACKENDS : {}, unknown, others);
  }
  return paintFigures(graph.nodes, by, unknown);
}

/** The ways there are for a graph: those that the document names first, in its order; then all others. */
export function ways(graph: Graph): string[] {
  const figures = new Set(graph.nodes.flatMap(node => Object.keys(node.values)));
  const all = new Set([...graph.colours, 'backend', 'type', 'group', ...figures]);
  return [...all].filter(name =>
    graph.nodes.some(node =>
      isWord(name) ? node[name] : typeof node.values[name] === 'number'
    )
  );
}

/** The first way that tells nodes apart, and is known of more than a few. */
export function firstWay(graph: Graph, all: string[]): string {
  const tells = (name: string): boolean => {
    const said = graph.nodes.map(node => (isWord(name) ? node[name] : node.values[name]));
    const known = said.filter(each => each !== null && each !== undefined && each !== '');
    return known.length >= graph.nodes.length / 10 && new Set(known).size > 1;
  };
  return all.find(tells) ?? 'type';
}

function paintWords(
  nodes: GraphNode[],
  word: (node: GraphNode) => string,
  fixed: Readonly<Record<string, string>>,
  unknown: string,
  others: string
): Paint {
  const counts = new Map<string, number>();
  for (const node of nodes) {
    counts.set(word(node), (counts.get(word(node)) ?? 0) + 1);
  }
  const known = [...counts.keys()].filter(Boolean).sort((a, b) => counts.get(b)! - counts.get(a)! || (a < b ? -1 : 1));
  const shown = known.length <= CATEGORIES.length ? known : known.slice(0, CATEGORIES.length - 1);
  const colour = (name: string, k: number): string => fixed[name] ?? CATEGORIES[k]!;
  const place = new Map(shown.map((name, k) => [name, k]));
  const legend = shown.map((name, k) => ({ colour: colour(name, k), label: `${name} (${counts.get(name)})` }));
  const rest = known.slice(shown.length).reduce((sum, name) => sum + counts.get(name)!, 0);
  if (rest > 0) {
    legend.push({ colour: OTHER, label: `${others} (${rest})` });
  }
  if (counts.has('')) {
    legend.push({ colour: OTHER, label: `${unknown} (${counts.get('')})` });
  }
  return {
    palette: [...shown.map(colour), OTHER],
    of: Uint8Array.from(nodes, node => place.get(word(node)) ?? shown.length),
    ranked: false,
    legend
  };
}

/** Seven steps; of amounts even in their square root, as a few ops take most of everything. */
function paintFigures(nodes: GraphNode[], name: string, unknown: string): Paint {
  const figures = nodes.map(node => node.values[name]);
  const known = figures.filter((figure): figure is number => typeof figure === 'number');
  const low = known.reduce((a, b) => Math.min(a, b), Infinity);
  const high = known.reduce((a, b) => Math.max(a, b), -Infinity);
  const power = low >= 0 && !name.endsWith('_db') ? 2 : 1;
  const steps = SEQUENCE.length;
  const share = (figure: number): number => {
    const [a, b, x] = [low, high, figure].map(value => (power === 2 ? Math.sqrt(value) : value));
    return b! > a! ? (x! - a!) / (b! - a!) : 0;
  };
  const edge = (step: number): number =>
    power === 2
      ? (Math.sqrt(low) + (step / steps) * (Math.sqrt(high) - Math.sqrt(low))) ** 2
      : low + (step / steps) * (high - low);
  const words = (figure: number): string => (Math.abs(figure) >= 1e4 ? compact(figure) : number(figure));
  const used = known.length > 0 && high > low ? SEQUENCE.map((_, k) => k) : known.length > 0 ? [0] : [];
  const legend: Paint['legend'] = used.map(k => ({
    colour: SEQUENCE[k]!,
    label: high > low ? `${words(edge(k))} – ${words(edge(k + 1))}` : words(low)
  }));
  const missing = figures.length - known.length;
  if (missing > 0) {
    legend.push({ colour: OTHER, label: `${unknown} (${missing})` });
  }
  return {
    palette: [...SEQUENCE, OTHER],
    of: Uint8Array.from(figures, figure =>
      typeof figure === 'number' ? Math.min(steps - 1, Math.floor(share(figure) * steps)) : steps
    ),
    ranked: true,
    legend
  };
}
