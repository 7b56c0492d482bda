/** The plugin that gives the others the routes, what was learnt from them, and the settings. */

import { type JupyterFrontEnd, type JupyterFrontEndPlugin } from '@jupyterlab/application';
import { ISettingRegistry } from '@jupyterlab/settingregistry';

import { routesOf, serverFetch } from './panel/routes';
import { IQnb, QnbSettings } from './tokens';
import { Knowledge } from './words/knowledge';

export const shared: JupyterFrontEndPlugin<IQnb> = {
  id: 'qnb:settings',
  description: "qnb's settings, and its routes on the server.",
  autoStart: true,
  provides: IQnb,
  optional: [ISettingRegistry],
  activate: (app: JupyterFrontEnd, registry: ISettingRegistry | null): IQnb => {
    const routes = routesOf(serverFetch(app.serviceManager.serverSettings));
    const knowledge = new Knowledge(routes);
    // A server that comes back may have another qnb.
    app.serviceManager.connectionFailure.connect(() => knowledge.forget());
    const settings = new QnbSettings();
    if (registry) {
      settings.read = registry.load('qnb:settings').then(
        loaded => settings.follow(loaded),
        (reason: unknown) => console.warn(`qnb: its settings can't be read: ${String(reason)}`)
      );
    }
    return { routes, knowledge, settings };
  }
};
