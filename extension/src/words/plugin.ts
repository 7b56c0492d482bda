/** `%qnn` in editors: its colours in every Python editor, its completion where there is a kernel. */

import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { EditorExtensionRegistry, IEditorExtensionRegistry } from '@jupyterlab/codemirror';
import { ICompletionProviderManager } from '@jupyterlab/completer';

import { IQnb } from '../tokens';
import { QnnCompletion } from './completer';
import { highlight } from './highlight';

export const words: JupyterFrontEndPlugin<void> = {
  id: 'qnb:words',
  description: 'Colours and completion for %qnn lines.',
  autoStart: true,
  requires: [IQnb],
  optional: [IEditorExtensionRegistry, ICompletionProviderManager],
  activate: (
    _app: JupyterFrontEnd,
    { knowledge }: IQnb,
    editors: IEditorExtensionRegistry | null,
    completers: ICompletionProviderManager | null
  ): void => {
    editors?.addExtension({
      name: 'qnb:highlight',
      factory: ({ model }) =>
        EditorExtensionRegistry.createImmutableExtension(highlight(model, (step, option) => knowledge.isSwitch(step, option)))
    });
    completers?.registerProvider(new QnnCompletion(knowledge));
  }
};
