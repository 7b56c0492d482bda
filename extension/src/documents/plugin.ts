/** The plugin that opens models, context binaries, DLCs, encodings, graphs and saved results from the file browser. */
import { ILayoutRestorer, type JupyterFrontEnd, type JupyterFrontEndPlugin } from '@jupyterlab/application';
import { WidgetTracker } from '@jupyterlab/apputils';
import type { IDocumentWidget } from '@jupyterlab/docregistry';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';

import { DOMAIN } from '../view/translation';
import { FACTORY, MODEL, NoContentFactory, ViewerFactory } from './factory';
import { ALSO, fileTypes } from './types';
import type { Viewer } from './viewer';

export const documents: JupyterFrontEndPlugin<void> = {
  id: 'qnb:documents',
  description: 'Shows ONNX models, context binaries, DLCs, encodings, QNN graphs and saved results.',
  autoStart: true,
  optional: [ITranslator, ILayoutRestorer],
  activate: (app: JupyterFrontEnd, translator: ITranslator | null, restorer: ILayoutRestorer | null) => {
    const trans = (translator ?? nullTranslator).load(DOMAIN);
    const registry = app.docRegistry;
    const types = fileTypes(trans);
    types.forEach(type => registry.addFileType(type));
    registry.addModelFactory(new NoContentFactory());
    const factory = new ViewerFactory({
      name: FACTORY,
      label: trans.__('QNN view'),
      modelName: MODEL,
      fileTypes: [...types.map(type => type.name), ...ALSO],
      defaultFor: types.map(type => type.name),
      readOnly: true,
      services: app.serviceManager,
      trans,
      isText: path => registry.getFileTypesForPath(path)[0]?.fileFormat === 'text',
      openAsText: path => void app.commands.execute('docmanager:open', { path, factory: 'Editor' })
    });
    registry.addWidgetFactory(factory);
    const tracker = new WidgetTracker<IDocumentWidget<Viewer>>({ namespace: 'qnb-documents' });
    factory.widgetCreated.connect((_, widget) => {
      widget.context.pathChanged.connect(() => void tracker.save(widget));
      void tracker.add(widget);
    });
    if (restorer) {
      void restorer.restore(tracker, {
        command: 'docmanager:open',
        args: widget => ({ path: widget.context.path, factory: FACTORY }),
        name: widget => widget.context.path
      });
    }
  }
};
