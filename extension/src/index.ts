/** The plugins of the qnb extension. */
import type { JupyterFrontEndPlugin } from '@jupyterlab/application';

import { commands } from './commands/plugin';
import { documents } from './documents/plugin';
import { panel } from './panel/plugin';
import { shared } from './shared';
import { outputs } from './view/plugin';
import { words } from './words/plugin';

const plugins: JupyterFrontEndPlugin<unknown>[] = [shared, panel, commands, words, outputs, documents];

export default plugins;
