/** The plugins of the qnb extension. */
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';

const probe: JupyterFrontEndPlugin<void> = {
  id: 'qnb:settings',
  description: 'Settings of qnb.',
  autoStart: true,
  activate: (_app: JupyterFrontEnd) => undefined
};

const plugins: JupyterFrontEndPlugin<unknown>[] = [probe];

export default plugins;
