/** Notebooks: where a cell goes, and new ones made of cells. */

import type { JupyterFrontEnd } from '@jupyterlab/application';
import { PathExt } from '@jupyterlab/coreutils';
import { type INotebookTracker, NotebookActions, type NotebookPanel } from '@jupyterlab/notebook';

import { RouteError } from '../panel/routes';
import type { CellSource } from './templates';

/** Put a code cell below the active one, and go there; run it if asked for. */
export async function insertBelow(panel: NotebookPanel, source: string, run = false): Promise<void> {
  await panel.context.ready;
  const notebook = panel.content;
  const empty = notebook.activeCell?.model.type === 'code' && !notebook.activeCell.model.sharedModel.getSource().trim();
  if (!empty) {
    NotebookActions.insertBelow(notebook);
    NotebookActions.changeCellType(notebook, 'code');
  }
  notebook.activeCell?.model.sharedModel.setSource(source);
  if (run) {
    await panel.sessionContext.ready;
    await NotebookActions.run(notebook, panel.sessionContext);
  } else {
    panel.content.activate();
  }
}

/** A line with what it needs to run: the magic's extension, unless a cell of the notebook loads it. */
export function withMagic(panel: NotebookPanel, line: string): string {
  const loads = panel.content.widgets.some(cell => /^\s*%(re)?load_ext\s+qnb\b/m.test(cell.model.sharedModel.getSource()));
  return loads ? line : `%load_ext qnb\n\n${line}`;
}

/** Folder, relative to the server's root, in which a notebook's kernel runs. */
export function folderOf(panel: NotebookPanel | null): string {
  return panel ? PathExt.dirname(panel.context.path.replace(/^[^/:]+:/, '')) : '';
}

/** Write a new notebook of cells, with a name that is free, and open it with a Python kernel. */
export async function newNotebook(
  app: JupyterFrontEnd,
  folder: string,
  stem: string,
  cells: readonly CellSource[]
): Promise<NotebookPanel> {
  const { contents, kernelspecs } = app.serviceManager;
  await kernelspecs.ready;
  const specs = kernelspecs.specs;
  const all = Object.values(specs?.kernelspecs ?? {});
  const spec = [specs?.kernelspecs[specs.default], ...all].find(each => each?.language === 'python');
  if (!spec) {
    throw new RouteError('There is no Python kernel on this server.', 'Run: pip install ipykernel');
  }
  const listed = await contents.get(folder, { content: true });
  const names = new Set((listed.content as { name: string }[]).map(item => item.name));
  let name = `${stem}.ipynb`;
  for (let number = 2; names.has(name); number += 1) {
    name = `${stem}-${number}.ipynb`;
  }
  const path = folder ? PathExt.join(folder, name) : name;
  await contents.save(path, {
    type: 'notebook',
    format: 'json',
    content: {
      cells: cells.map(({ type, source }, index) => ({
        id: `qnb-${index}`,
        cell_type: type,
        metadata: {},
        source,
        ...(type === 'code' ? { execution_count: null, outputs: [] } : {})
      })),
      metadata: {
        kernelspec: { name: spec.name, display_name: spec.display_name, language: spec.language },
        language_info: { name: 'python' }
      },
      nbformat: 4,
      nbformat_minor: 5
    }
  });
  return (await app.commands.execute('docmanager:open', { path, factory: 'Notebook', kernel: { name: spec.name } })) as NotebookPanel;
}

/** The notebook that is being worked at, if there is one. */
export function currentNotebook(tracker: INotebookTracker | null): NotebookPanel | null {
  return tracker?.currentWidget ?? null;
}
