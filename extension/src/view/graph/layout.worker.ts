/** Runs the layout beside the page, which stays responsive meanwhile. */
import { layout } from './layout';

interface Task {
  count: number;
  edges: [number, number][];
}

self.onmessage = (event: MessageEvent<Task>) => {
  self.postMessage(layout(event.data.count, event.data.edges));
};
