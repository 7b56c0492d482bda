/** The side panel: made, put in its place, and told what a click in it does. */

import { ILayoutRestorer, type JupyterFrontEnd, type JupyterFrontEndPlugin } from '@jupyterlab/application';
import { INotebookTracker } from '@jupyterlab/notebook';
import { ITranslator } from '@jupyterlab/translation';

import { Acts } from '../commands/acts';
import { IQnb } from '../tokens';
import { PanelState } from './state';
import { PanelWidget } from './widget';

const RANK = 350;

export const panel: JupyterFrontEndPlugin<void> = {
  id: 'qnb:panel',
  description: 'Side panel of qnb: target SoC, running work, models and results, and what this machine has.',
  autoStart: true,
  requires: [IQnb, ITranslator],
  optional: [INotebookTracker, ILayoutRestorer],
  activate: (
    app: JupyterFrontEnd,
    qnb: IQnb,
    translator: ITranslator,
    tracker: INotebookTracker | null,
    restorer: ILayoutRestorer | null
  ): void => {
    const trans = translator.load('qnb');
    const state = new PanelState(qnb.routes, qnb.settings.refreshInterval);
    const acts = new Acts(app, qnb, tracker, trans);
    const widget = new PanelWidget(
      state,
      { open: entry => void acts.open(entry), copy: entry => acts.copyLine(entry) },
      trans
    );
    app.shell.add(widget, 'left', { rank: RANK, type: 'QNN' });
    restorer?.add(widget, widget.id);
    qnb.settings.changed.connect(() => {
      state.interval = qnb.settings.refreshInterval;
    });
    void Promise.all([app.restored, qnb.settings.read]).then(() => {
      if (qnb.settings.showAtStart) {
        app.shell.activateById(widget.id);
      }
    });
  }
};
