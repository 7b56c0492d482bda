/** The plugin that shows results in outputs. */
import type { JupyterFrontEndPlugin } from '@jupyterlab/application';
import { IRenderMimeRegistry } from '@jupyterlab/rendermime';

import { rendererFactory } from './renderer';

export const outputs: JupyterFrontEndPlugin<void> = {
  id: 'qnb:outputs',
  description: "Shows qnb's results in outputs: tables that sort and search, charts, the graph.",
  autoStart: true,
  requires: [IRenderMimeRegistry],
  activate: (_, rendermime: IRenderMimeRegistry) => rendermime.addFactory(rendererFactory)
};
