/** Makes the pages of files for JupyterLab's registry. */
import { ToolbarButton } from '@jupyterlab/apputils';
import {
  ABCWidgetFactory,
  DocumentWidget,
  TextModelFactory,
  type DocumentRegistry,
  type IDocumentWidget
} from '@jupyterlab/docregistry';
import type { Contents, ServiceManager } from '@jupyterlab/services';
import type { TranslationBundle } from '@jupyterlab/translation';
import { refreshIcon } from '@jupyterlab/ui-components';

import { Viewer } from './viewer';

export const FACTORY = 'qnb';
export const MODEL = 'qnb-no-content';

/** A model without content: the server reads the file, however large it is; the page gets what there is to see of it. */
export class NoContentFactory extends TextModelFactory {
  constructor() {
    super(false);
  }

  get name(): string {
    return MODEL;
  }

  get contentType(): Contents.ContentType {
    return 'file';
  }

  get fileFormat(): Contents.FileFormat {
    return null;
  }
}

export interface ViewerFactoryOptions extends DocumentRegistry.IWidgetFactoryOptions<IDocumentWidget<Viewer>> {
  services: ServiceManager.IManager;
  trans: TranslationBundle;
  isText: (path: string) => boolean;
  openAsText: (path: string) => void;
}

export class ViewerFactory extends ABCWidgetFactory<IDocumentWidget<Viewer>> {
  constructor(private readonly made: ViewerFactoryOptions) {
    super(made);
  }

  protected createNewWidget(context: DocumentRegistry.Context): IDocumentWidget<Viewer> {
    const { services, trans, isText, openAsText } = this.made;
    const content = new Viewer({
      path: () => context.path,
      contents: services.contents,
      settings: services.serverSettings,
      trans,
      openAsText: isText(context.path) ? () => openAsText(context.path) : null
    });
    const widget = new DocumentWidget({ content, context });
    widget.toolbar.addItem(
      'reload',
      new ToolbarButton({
        icon: refreshIcon,
        label: trans.__('Read again'),
        tooltip: trans.__('Read the file again'),
        onClick: () => void content.load()
      })
    );
    const load = (): void => void content.load();
    context.pathChanged.connect(load);
    void context.ready.then(load);
    return widget;
  }
}
