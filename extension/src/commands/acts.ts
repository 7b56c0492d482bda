/** What the commands do: each asks what it needs to know, and ends in a cell, a notebook or a viewer. */

import type { JupyterFrontEnd } from '@jupyterlab/application';
import { Clipboard, Dialog, Notification, showDialog } from '@jupyterlab/apputils';
import { PathExt } from '@jupyterlab/coreutils';
import type { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import type { TranslationBundle } from '@jupyterlab/translation';

import { plain } from '../panel/format';
import { isSaved, openingLine, pythonName, relative } from '../panel/lineage';
import { type Entry, RouteError } from '../panel/routes';
import type { IQnb } from '../tokens';
import { flagOf, type Step, type StepOption, type Written, written } from '../words/steps';
import { type Choice, Chooser, type Compilation, CompileForm } from './choosers';
import { type Filled, StepForm } from './form';
import { currentNotebook, folderOf, insertBelow, newNotebook, withMagic } from './notebooks';
import { cellsOf, TEMPLATES } from './templates';

const SUGGEST_MS = 2000;
/** Name of the extension's viewer among JupyterLab's; what opens a file where it is not there shows plain text. */
const VIEWER = 'qnb';

export class Acts {
  constructor(
    private readonly _app: JupyterFrontEnd,
    private readonly _qnb: IQnb,
    private readonly _tracker: INotebookTracker | null,
    private readonly _trans: TranslationBundle
  ) {}

  /** Make a notebook from a template; which one is asked for unless it is told. */
  async newNotebook(folder: string, id: string | undefined): Promise<NotebookPanel | null> {
    const chosen =
      id ?? (await this._choose(this._trans.__('New QNN notebook'), TEMPLATES, this._qnb.settings.template, this._trans.__('Create')));
    const template = TEMPLATES.find(each => each.id === chosen);
    if (!template) {
      return null;
    }
    const cells = cellsOf(template, await this._qnb.knowledge.steps());
    return newNotebook(this._app, folder, `qnn-${template.id}`, cells);
  }

  /** Insert source as it is. */
  async insert(source: string, run = false): Promise<void> {
    await insertBelow(this._needed(), source, run);
  }

  /** Ask for a step's options and insert its line; the step too is asked for unless it is told. */
  async insertStep(name: string | undefined): Promise<void> {
    const panel = this._needed();
    const steps = await this._qnb.knowledge.steps();
    const chosen = name ?? (await this._choose(this._trans.__('Insert a step'), steps.map(choiceOf), 'export', this._trans.__('Next')));
    const step = steps.find(each => each.name === chosen);
    if (!step) {
      return;
    }
    let filled: Filled = { values: {}, out: '', run: false };
    for (;;) {
      const body = new StepForm(step, filled, (of, option) => this._suggestions(panel, of, option), this._trans);
      const answer = await showDialog({
        title: `%qnn ${step.name}`,
        body,
        buttons: [Dialog.cancelButton(), Dialog.okButton({ label: this._trans.__('Insert') })],
        focusNodeSelector: 'input, select'
      });
      if (!answer.button.accept || !answer.value) {
        return;
      }
      filled = answer.value.filled;
      if (!answer.value.written.problems.length) {
        await insertBelow(panel, withMagic(panel, answer.value.written.line), filled.run);
        return;
      }
    }
  }

  /** Ask for SoCs, and insert the line that compiles for them; in a new notebook where none is open. */
  async compileFor(file: string | undefined, socs: readonly string[] | undefined): Promise<void> {
    const [steps, known] = await Promise.all([this._qnb.knowledge.steps(), this._qnb.routes.socs()]);
    const step = steps.find(each => each.name === 'context');
    if (!step) {
      throw new RouteError("the server's qnb has no step context", 'Reinstall qnb and reload the page.');
    }
    const panel = currentNotebook(this._tracker);
    const folder = panel ? folderOf(panel) : PathExt.dirname(file ?? '');
    const lineOf = ({ build, socs: chosen, out }: Compilation): Written =>
      written(step, { BUILD: build, '--soc': chosen.join(',') }, out);
    let value: Compilation = {
      build: file ? pathWord(relative(file, folder)) : '',
      socs: [...(socs ?? [known.target])],
      out: file ? `${pythonName(file)}_compiled` : 'compiled',
      run: false
    };
    for (;;) {
      const build = step.options.find(option => option.name === 'BUILD');
      const names = async (): Promise<string[]> => (panel && build ? this._suggestions(panel, step, build) : []);
      const body = new CompileForm(known.socs, value, names, lineOf, this._trans);
      const answer = await showDialog({
        title: this._trans.__('Compile for…'),
        body,
        buttons: [Dialog.cancelButton(), Dialog.okButton({ label: this._trans.__('Insert') })],
        focusNodeSelector: file ? 'input[type="search"]' : 'input'
      });
      if (!answer.button.accept || !answer.value) {
        return;
      }
      value = answer.value;
      const { line, problems } = lineOf(value);
      if (!problems.length) {
        const into = panel ?? (await newNotebook(this._app, folder, 'qnn-compile', []));
        await into.context.ready;
        await insertBelow(into, withMagic(into, line), value.run);
        return;
      }
    }
  }

  /** Ask which saved result to look at, and open it. */
  async openReport(path: string | undefined): Promise<void> {
    const { entries } = await this._qnb.routes.workspace();
    const saved = entries.filter(isSaved);
    if (!saved.length) {
      throw new RouteError(
        this._trans.__('There is no saved result in this workspace.'),
        this._trans.__('Save one first: %qnn save RESULT FOLDER')
      );
    }
    const choices = saved.map(entry => ({ id: entry.path, title: plain(entry.title || entry.path), about: plain(`${entry.kind}: ${entry.path}`) }));
    const chosen =
      path ?? (await this._choose(this._trans.__('Open a saved result'), choices, choices[0]!.id, this._trans.__('Open')));
    const entry = saved.find(each => each.path === chosen);
    if (entry) {
      await this.open(entry);
    } else if (path !== undefined) {
      throw new RouteError(this._trans.__('%1 is no saved result of this workspace.', path));
    }
  }

  /** Ask which running job to stop, unless it is told, and ask that one to stop. */
  async cancelJob(id: string | undefined): Promise<void> {
    if (id !== undefined) {
      return this._qnb.routes.cancel(id);
    }
    const jobs = await this._qnb.routes.jobs();
    if (!jobs.length) {
      Notification.info(this._trans.__('Nothing runs that could be cancelled.'), { autoClose: 4000 });
      return;
    }
    const choices = jobs.map(job => ({ id: job.id, title: plain(job.title), about: plain(job.line || job.text) }));
    const chosen = await this._choose(this._trans.__('Cancel a running job'), choices, choices[0]!.id, this._trans.__('Cancel it'));
    if (chosen !== null) {
      await this._qnb.routes.cancel(chosen);
    }
  }

  /** Open the viewer of a file or of a saved result. */
  async open(entry: Entry): Promise<void> {
    const path = isSaved(entry) ? `${entry.path}/result.json` : entry.path;
    const viewer = this._app.docRegistry.getWidgetFactory(VIEWER) ? { factory: VIEWER } : {};
    await this._app.commands.execute('docmanager:open', { path, ...viewer });
  }

  /** Copy the line that opens an entry in the current notebook, or in one at the server's root. */
  copyLine(entry: Entry): void {
    const line = openingLine(entry, folderOf(currentNotebook(this._tracker)));
    if (line === null) {
      return;
    }
    Clipboard.copyToSystem(line);
    Notification.success(this._trans.__('Copied'), { autoClose: 2000 });
  }

  private _needed(): NotebookPanel {
    const panel = currentNotebook(this._tracker);
    if (!panel) {
      throw new RouteError(
        this._trans.__('No notebook is open to insert a cell into.'),
        this._trans.__('Open one, or make one: QNN notebook in the launcher.')
      );
    }
    return panel;
  }

  private async _choose(title: string, choices: readonly Choice[], first: string, accept: string): Promise<string | null> {
    const answer = await showDialog({
      title,
      body: new Chooser(choices, choices.some(each => each.id === first) ? first : (choices[0]?.id ?? ''), title),
      buttons: [Dialog.cancelButton(), Dialog.okButton({ label: accept })],
      focusNodeSelector: 'input:checked'
    });
    return answer.button.accept ? answer.value : null;
  }

  /** Variables and files that fit an option, as the kernel's own completion knows them; none where it is busy. */
  private async _suggestions(panel: NotebookPanel, step: Step, option: StepOption): Promise<string[]> {
    const kernel = panel.sessionContext.session?.kernel;
    if (!kernel || kernel.status === 'busy') {
      return [];
    }
    const code = `%qnn ${step.name} ${flagOf(option)} `;
    const late = new Promise<null>(resolve => setTimeout(() => resolve(null), SUGGEST_MS));
    const reply = await Promise.race([kernel.requestComplete({ code, cursor_pos: code.length }), late]);
    return reply?.content.status === 'ok' ? reply.content.matches : [];
  }
}

function choiceOf(step: Step): Choice {
  return { id: step.name, title: step.name, about: step.summary };
}

/** A path that begins with a dash would be taken for an option. */
function pathWord(path: string): string {
  return path.startsWith('-') ? `./${path}` : path;
}
