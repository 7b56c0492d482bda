/** A graph's layout, from a worker where the page can have one. */
import type { Graph } from '../document';
import { layout, type Layout } from './layout';

/** Below this a layout takes less than a worker's start. */
const SMALL = 200;

export function lay(graph: Graph): Promise<Layout> {
  const at = new Map(graph.nodes.map((node, position) => [node.id, position]));
  const edges = graph.edges.map((edge): [number, number] => [at.get(edge.from) ?? 0, at.get(edge.to) ?? 0]);
  const here = (): Layout => layout(graph.nodes.length, edges);
  if (graph.nodes.length < SMALL || typeof Worker === 'undefined') {
    return Promise.resolve(here());
  }
  return new Promise<Layout>(resolve => {
    let worker: Worker;
    try {
      worker = new Worker(new URL('./layout.worker.js', import.meta.url));
    } catch {
      resolve(here()); // the page comes from elsewhere than the extension, and may not start workers of it
      return;
    }
    worker.onmessage = (event: MessageEvent<Layout>) => {
      resolve(event.data);
      worker.terminate();
    };
    worker.onerror = event => {
      event.preventDefault();
      resolve(here());
      worker.terminate();
    };
    worker.postMessage({ count: graph.nodes.length, edges });
  });
}
