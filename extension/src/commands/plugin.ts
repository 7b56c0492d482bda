/** Commands, launcher card, palette and the widgets' wish for a cell. Menus and keys are in schema/settings.json. */

import { type JupyterFrontEnd, type JupyterFrontEndPlugin } from '@jupyterlab/application';
import { Dialog, ICommandPalette, showDialog } from '@jupyterlab/apputils';
import { IDefaultFileBrowser } from '@jupyterlab/filebrowser';
import { ILauncher } from '@jupyterlab/launcher';
import { INotebookTracker } from '@jupyterlab/notebook';
import { ITranslator } from '@jupyterlab/translation';
import type { ReadonlyPartialJSONObject } from '@lumino/coreutils';

import { RouteError } from '../panel/routes';
import { qnnIcon } from '../panel/widget';
import { IQnb } from '../tokens';
import { Acts } from './acts';

export namespace CommandIDs {
  export const newNotebook = 'qnb:new-notebook';
  export const insertCell = 'qnb:insert-cell';
  export const compileFor = 'qnb:compile-for';
  export const openReport = 'qnb:open-report';
  export const showPanel = 'qnb:show-panel';
  export const cancelJob = 'qnb:cancel-job';
}

const CATEGORY = 'QNN';
const MODEL = /\.onnx$/i;

export const commands: JupyterFrontEndPlugin<void> = {
  id: 'qnb:commands',
  description: 'Commands of qnb: notebooks from templates, cells of steps, compilation, saved results.',
  autoStart: true,
  requires: [IQnb, ITranslator],
  optional: [INotebookTracker, ICommandPalette, ILauncher, IDefaultFileBrowser],
  activate: (
    app: JupyterFrontEnd,
    qnb: IQnb,
    translator: ITranslator,
    tracker: INotebookTracker | null,
    palette: ICommandPalette | null,
    launcher: ILauncher | null,
    browser: IDefaultFileBrowser | null
  ): void => {
    const trans = translator.load('qnb');
    const acts = new Acts(app, qnb, tracker, trans);
    const selected = (): string | undefined => {
      for (const item of browser?.selectedItems() ?? []) {
        if (item.type !== 'directory' && MODEL.test(item.path)) {
          return item.path;
        }
      }
      return undefined;
    };
    /** An act that fails says so in a dialog, with what to do next. */
    const heard = async <T>(act: Promise<T>): Promise<T | undefined> => {
      try {
        return await act;
      } catch (error) {
        const hint = error instanceof RouteError ? error.hint : '';
        const body = [error instanceof Error ? error.message : String(error), hint].filter(Boolean).join('\n\n');
        await showDialog({ title: trans.__('QNN'), body, buttons: [Dialog.okButton()] });
        return undefined;
      }
    };

    app.commands.addCommand(CommandIDs.newNotebook, {
      label: args => (args['isPalette'] ? trans.__('New QNN notebook…') : trans.__('QNN notebook')),
      caption: trans.__('Make a notebook from a workflow for Qualcomm QNN: quickstart, calibrate, compare backends, profile'),
      icon: args => (args['isPalette'] ? undefined : qnnIcon),
      execute: args => heard(acts.newNotebook(text(args, 'cwd') ?? browser?.model.path ?? '', text(args, 'template')))
    });
    app.commands.addCommand(CommandIDs.insertCell, {
      label: args => {
        const step = text(args, 'step');
        return step ? trans.__('Insert cell: %1…', step) : trans.__('Insert cell of a step…');
      },
      caption: trans.__('Fill in the options of a step, and insert its %qnn line below the active cell'),
      execute: args => {
        const source = text(args, 'source');
        return heard(source === undefined ? acts.insertStep(text(args, 'step')) : acts.insert(source, args['run'] === true));
      }
    });
    app.commands.addCommand(CommandIDs.compileFor, {
      label: trans.__('Compile for…'),
      caption: trans.__('Compile a variable or a file for one or several Snapdragons'),
      icon: args => (args['isPalette'] ? undefined : qnnIcon),
      isVisible: args => !args['isContext'] || selected() !== undefined,
      execute: args => {
        const socs = args['socs'];
        const file = text(args, 'path') ?? (args['isContext'] ? selected() : undefined);
        return heard(acts.compileFor(file, Array.isArray(socs) ? socs.map(String) : undefined));
      }
    });
    app.commands.addCommand(CommandIDs.openReport, {
      label: trans.__('Open a saved result…'),
      caption: trans.__('Choose among the reports and results that are saved in this workspace'),
      execute: args => heard(acts.openReport(text(args, 'path')))
    });
    app.commands.addCommand(CommandIDs.cancelJob, {
      label: trans.__('Cancel a running job…'),
      caption: trans.__('Stop work of qnb that runs in a kernel; what it has finished is kept'),
      execute: args => heard(acts.cancelJob(text(args, 'id')))
    });
    app.commands.addCommand(CommandIDs.showPanel, {
      label: trans.__('Show the QNN panel'),
      caption: trans.__('Target SoC, running work, models and results, and what this machine has'),
      execute: () => app.shell.activateById('qnb-panel')
    });

    launcher?.add({ command: CommandIDs.newNotebook, category: CATEGORY, rank: 0 });
    const { newNotebook, insertCell, compileFor, openReport, showPanel, cancelJob } = CommandIDs;
    for (const command of [newNotebook, insertCell, compileFor, openReport, showPanel, cancelJob]) {
      palette?.addItem({ command, category: CATEGORY, args: { isPalette: true } });
    }
    if (palette) {
      // Without the server's answer there are no steps to offer; the commands say why when they are used.
      void app.restored
        .then(() => qnb.knowledge.steps())
        .then(steps => steps.forEach(({ name }) => palette.addItem({ command: insertCell, category: CATEGORY, args: { step: name } })))
        .catch((reason: RouteError) => console.warn(`qnb: ${reason.message} ${reason.hint}`));
    }

    document.addEventListener('qnb:insert-cell', event => {
      const source: unknown = (event as CustomEvent<{ source?: unknown } | null>).detail?.source;
      if (typeof source === 'string' && tracker?.currentWidget) {
        event.preventDefault();
        void heard(acts.insert(source));
      }
    });
  }
};

function text(args: ReadonlyPartialJSONObject, name: string): string | undefined {
  const value = args[name];
  return typeof value === 'string' ? value : undefined;
}
