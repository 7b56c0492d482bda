/**
 * Draws a laid-out graph on a canvas, and finds what is under the pointer.
 *
 * Only what is seen is drawn, with one path for all edges and one for each colour of nodes: a canvas without a graphics
 * card has to keep up with a pan over thousands of ops.
 */
import { inkOn } from '../colours';
import type { Graph } from '../document';
import { clean, elide } from '../words';
import { LAYER_HEIGHT, NODE_HEIGHT, NODE_WIDTH, type Layout } from './layout';
import type { Paint } from './paint';

export interface View {
  k: number;
  x: number;
  y: number;
}

export interface Theme {
  paper: string;
  edge: string;
  ink: string;
  accent: string;
  font: string;
}

export interface Marks {
  selected: number;
  found: ReadonlySet<number>;
}

const LABEL_ZOOM = 0.5;
const CURVE_ZOOM = 0.12;
const ARROW_ZOOM = 0.35;
/** Width of a letter of a monospaced font, as a part of its size. */
const LETTER = 0.61;
const FONT = 11;
/** Width of a deep network that is seen as a whole, in pixels. */
const STRIP = 28;

export class Scene {
  private readonly byLayer: number[][] = [];
  /** Four numbers a segment, by the layer that it starts in. */
  private readonly segments: number[][] = [];
  /** Segments over several layers. */
  private readonly long: number[] = [];
  private readonly edgesOf = new Map<number, number[]>();
  private readonly at: Map<number, number>;
  private readonly labels: [string, string][];

  constructor(
    readonly graph: Graph,
    readonly layout: Layout
  ) {
    this.at = new Map(graph.nodes.map((node, position) => [node.id, position]));
    graph.nodes.forEach((_, position) => {
      const layer = this.layerAt(layout.y[position]!);
      (this.byLayer[layer] ??= []).push(position);
    });
    graph.edges.forEach((edge, index) => {
      for (const end of new Set([edge.from, edge.to])) {
        const position = this.at.get(end)!;
        const known = this.edgesOf.get(position);
        if (known) {
          known.push(index);
        } else {
          this.edgesOf.set(position, [index]);
        }
      }
      this.path(index, (x0, y0, x1, y1) => {
        if (Math.abs(y1 - y0) > LAYER_HEIGHT) {
          this.long.push(x0, y0, x1, y1);
        } else {
          (this.segments[this.layerAt(Math.min(y0, y1))] ??= []).push(x0, y0, x1, y1);
        }
      });
    });
    const room = Math.floor((NODE_WIDTH - 12) / (FONT * LETTER));
    this.labels = graph.nodes.map(node => [elide(node.type, room), elide(node.name, room)]);
  }

  position(id: number): number {
    return this.at.get(id) ?? -1;
  }

  edgesAt(position: number): number[] {
    return this.edgesOf.get(position) ?? [];
  }

  /** The node at a point of the graph, or -1. */
  hit(x: number, y: number): number {
    const near = this.byLayer[this.layerAt(y)] ?? [];
    return (
      near.find(
        node =>
          Math.abs(this.layout.x[node]! - x) <= NODE_WIDTH / 2 && Math.abs(this.layout.y[node]! - y) <= NODE_HEIGHT / 2
      ) ?? -1
    );
  }

  /** Draw what of the graph is seen; returns how many nodes that are. */
  draw(
    context: CanvasRenderingContext2D,
    size: { width: number; height: number; ratio: number },
    view: View,
    paint: Paint,
    marks: Marks,
    theme: Theme
  ): number {
    context.setTransform(size.ratio, 0, 0, size.ratio, 0, 0);
    context.fillStyle = theme.paper;
    context.fillRect(0, 0, size.width, size.height);
    const box = {
      left: -view.x / view.k,
      top: -view.y / view.k,
      right: (size.width - view.x) / view.k,
      bottom: (size.height - view.y) / view.k
    };
    context.setTransform(size.ratio * view.k, 0, 0, size.ratio * view.k, size.ratio * view.x, size.ratio * view.y);
    const first = Math.max(0, this.layerAt(box.top) - 1);
    const last = Math.min(Math.max(this.byLayer.length, this.segments.length) - 1, this.layerAt(box.bottom));
    this.drawEdges(context, view, box, first, last, theme);
    const seen = this.drawNodes(context, view, size.ratio, box, first, last, paint);
    this.drawMarks(context, view, marks, theme);
    if (view.k >= LABEL_ZOOM) {
      this.drawLabels(context, seen, paint, theme);
    }
    return seen.length;
  }

  private drawEdges(
    context: CanvasRenderingContext2D,
    view: View,
    box: { left: number; right: number; top: number; bottom: number },
    first: number,
    last: number,
    theme: Theme
  ): void {
    const arrows: number[] = [];
    context.beginPath();
    const add = (x0: number, y0: number, x1: number, y1: number): void => {
      if (Math.max(x0, x1) < box.left || Math.min(x0, x1) > box.right || y1 < box.top || y0 > box.bottom) {
        return;
      }
      segment(context, x0, y0, x1, y1, view.k >= CURVE_ZOOM);
      arrows.push(x1, y1);
    };
    for (let layer = first; layer <= last; layer++) {
      const all = this.segments[layer] ?? [];
      for (let k = 0; k < all.length; k += 4) {
        add(all[k]!, all[k + 1]!, all[k + 2]!, all[k + 3]!);
      }
    }
    for (let k = 0; k < this.long.length; k += 4) {
      add(this.long[k]!, this.long[k + 1]!, this.long[k + 2]!, this.long[k + 3]!);
    }
    context.strokeStyle = theme.edge;
    context.lineWidth = Math.max(1.2, 0.6 / view.k);
    context.stroke();
    if (view.k >= ARROW_ZOOM) {
      context.beginPath();
      for (let k = 0; k < arrows.length; k += 2) {
        const [x, y] = [arrows[k]!, arrows[k + 1]!];
        if (this.hit(x, y + 1) !== -1) {
          context.moveTo(x, y);
          context.lineTo(x - 4, y - 7);
          context.lineTo(x + 4, y - 7);
        }
      }
      context.fillStyle = theme.edge;
      context.fill();
    }
  }

  private drawNodes(
    context: CanvasRenderingContext2D,
    view: View,
    ratio: number,
    box: { left: number; right: number },
    first: number,
    last: number,
    paint: Paint
  ): number[] {
    const groups: number[][] = paint.palette.map(() => []);
    const seen: number[] = [];
    for (let layer = first; layer <= last; layer++) {
      for (const node of this.byLayer[layer] ?? []) {
        const x = this.layout.x[node]!;
        if (x + NODE_WIDTH / 2 >= box.left && x - NODE_WIDTH / 2 <= box.right) {
          groups[paint.of[node]!]!.push(node);
          seen.push(node);
        }
      }
    }
    // A whole network on the page: an op is still a line to be seen, and a deep one a strip of colours.
    const height = Math.max(NODE_HEIGHT, 1.5 / view.k);
    const width = this.layout.width < 8 * NODE_WIDTH ? Math.max(NODE_WIDTH, STRIP / view.k) : NODE_WIDTH;
    // Ops that cover each other get whole pixels: their colours stay those of the legend.
    const crowded = height > LAYER_HEIGHT;
    const pixel = 1 / (ratio * view.k);
    const top = (node: number): number => {
      const y = this.layout.y[node]! - height / 2;
      return crowded ? (Math.round((y * view.k + view.y) * ratio) / ratio - view.y) / view.k : y;
    };
    const tall = crowded ? Math.ceil(height / pixel) * pixel : height;
    const fill = (nodes: number[], colour: number): void => {
      if (nodes.length === 0) {
        return;
      }
      context.beginPath();
      for (const node of nodes) {
        context.rect(this.layout.x[node]! - width / 2, top(node), width, tall);
      }
      context.fillStyle = paint.palette[colour]!;
      context.fill();
    };
    if (crowded && !paint.ranked) {
      // Colour by colour, one kind would cover all others.
      seen.forEach(node => fill([node], paint.of[node]!));
      return seen;
    }
    // What has no figure comes first, the largest last: they are what is looked for.
    fill(groups[groups.length - 1]!, groups.length - 1);
    groups.slice(0, -1).forEach(fill);
    return seen;
  }

  private drawMarks(context: CanvasRenderingContext2D, view: View, marks: Marks, theme: Theme): void {
    const frame = (node: number, gap: number): void => {
      const room = gap / Math.min(1, view.k);
      context.rect(
        this.layout.x[node]! - NODE_WIDTH / 2 - room,
        this.layout.y[node]! - NODE_HEIGHT / 2 - room,
        NODE_WIDTH + 2 * room,
        NODE_HEIGHT + 2 * room
      );
    };
    const width = 2 / Math.min(1, view.k);
    if (marks.found.size > 0) {
      context.beginPath();
      marks.found.forEach(node => frame(node, 2));
      context.setLineDash([4 * width, 2 * width]);
      context.strokeStyle = theme.ink;
      context.lineWidth = width;
      context.stroke();
      context.setLineDash([]);
    }
    if (marks.selected !== -1) {
      context.beginPath();
      for (const edge of this.edgesAt(marks.selected)) {
        this.path(edge, (x0, y0, x1, y1) => segment(context, x0, y0, x1, y1, true));
      }
      context.strokeStyle = theme.accent;
      context.lineWidth = 1.2 * width;
      context.stroke();
      context.beginPath();
      frame(marks.selected, 3);
      context.lineWidth = 1.5 * width;
      context.stroke();
    }
  }

  private drawLabels(context: CanvasRenderingContext2D, seen: number[], paint: Paint, theme: Theme): void {
    const inks = paint.palette.map(inkOn);
    context.textAlign = 'center';
    context.textBaseline = 'middle';
    for (const [line, font] of [
      [0, `600 ${FONT}px ${theme.font}`],
      [1, `${FONT}px ${theme.font}`]
    ] as const) {
      context.font = font;
      for (const node of seen) {
        context.fillStyle = inks[paint.of[node]!]!;
        const y = this.layout.y[node]! + (line === 0 ? -7.5 : 7.5);
        context.fillText(this.labels[node]![line], this.layout.x[node]!, y);
      }
    }
  }

  /** Say each piece of an edge, from the lower side of its upper node to the upper side of its lower one. */
  private path(index: number, piece: (x0: number, y0: number, x1: number, y1: number) => void): void {
    const edge = this.graph.edges[index]!;
    let [a, b] = [this.at.get(edge.from)!, this.at.get(edge.to)!];
    if (a === b) {
      return;
    }
    if (this.layout.y[a]! > this.layout.y[b]!) {
      [a, b] = [b, a]; // it closes a cycle, and goes up
    }
    let [x, y] = [this.layout.x[a]!, this.layout.y[a]! + NODE_HEIGHT / 2];
    const route = this.layout.routes[index]!;
    for (let k = 0; k < route.length; k += 2) {
      const [next, middle] = [route[k]!, route[k + 1]!];
      piece(x, y, next, middle - NODE_HEIGHT / 2);
      piece(next, middle - NODE_HEIGHT / 2, next, middle + NODE_HEIGHT / 2);
      [x, y] = [next, middle + NODE_HEIGHT / 2];
    }
    piece(x, y, this.layout.x[b]!, this.layout.y[b]! - NODE_HEIGHT / 2);
  }

  private layerAt(y: number): number {
    return Math.floor(y / LAYER_HEIGHT);
  }
}

function segment(
  context: CanvasRenderingContext2D,
  x0: number,
  y0: number,
  x1: number,
  y1: number,
  curved: boolean
): void {
  context.moveTo(x0, y0);
  if (curved && x0 !== x1) {
    const middle = (y0 + y1) / 2;
    context.bezierCurveTo(x0, middle, x1, middle, x1, y1);
  } else {
    context.lineTo(x1, y1);
  }
}

/** What a node is called where there is one line for it. */
export function nodeLabel(node: { name: string; type: string }): string {
  return clean(node.name) || clean(node.type) || '–';
}
