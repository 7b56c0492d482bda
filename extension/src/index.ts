/** The plugins of the qnb extension. */
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';

import { documents } from './documents/plugin';
import { outputs } from './view/plugin';

const probe: JupyterFrontEndPlugin<void> = {
  id: 'qnb:settings',
  description: 'Settings of qnb.',
  autoStart: true,
  activate: (_app: JupyterFrontEnd) => undefined
};

const plugins: JupyterFrontEndPlugin<unknown>[] = [probe, outputs, documents];

export default plugins;
