/** Shows a result in a notebook's output, above its HTML; the notebook keeps HTML and text for everywhere else. */
import type { IRenderMime } from '@jupyterlab/rendermime-interfaces';
import { nullTranslator, type TranslationBundle } from '@jupyterlab/translation';
import { ReactWidget } from '@jupyterlab/ui-components';

import { isRefusal, MIME, readDocument, type Refusal } from './document';
import { picturesOf } from './pictures';
import { DOMAIN } from './translation';

/** HTML has 50, widgets have 0; the lowest is taken. */
const RANK = 30;

export const rendererFactory: IRenderMime.IRendererFactory = {
  safe: true,
  mimeTypes: [MIME],
  defaultRank: RANK,
  createRenderer: options => new ReportRenderer(options.translator?.load(DOMAIN))
};

export class ReportRenderer extends ReactWidget implements IRenderMime.IRenderer {
  constructor(private readonly trans: TranslationBundle = nullTranslator.load(DOMAIN)) {
    super();
    this.addClass('qnb-Output');
  }

  async renderModel(model: IRenderMime.IMimeModel): Promise<void> {
    const read = readDocument(model.data[MIME]);
    if (isRefusal(read)) {
      this.shown = <Refused refusal={read} text={textOf(model.data['text/plain'])} trans={this.trans} />;
    } else {
      const { ReportView } = await import('./view');
      const pictures = picturesOf(textOf(model.data['text/html']));
      this.shown = <ReportView document={read} trans={this.trans} pictures={pictures} embedded />;
    }
    if (!this.isDisposed) {
      this.update();
      await this.renderPromise;
    }
  }

  protected render(): JSX.Element | null {
    return this.shown;
  }

  private shown: JSX.Element | null = null;
}

/** What is said where a document can't be shown, with the text that came beside it. */
export function Refused(props: { refusal: Refusal; text: string; trans: TranslationBundle }): JSX.Element {
  const { refusal, text, trans } = props;
  return (
    <div className="qnb-View qnb-mod-embedded">
      <p className="qnb-Problem" role="alert">
        {refusal.refused === 'format'
          ? trans.__(
              'This output has format %1 of qnb, which this version of the extension does not know. Update qnb to see it here.',
              refusal.format
            )
          : trans.__('This output of qnb is damaged: %1. Run the cell again.', refusal.what)}
      </p>
      {text && <pre>{text}</pre>}
    </div>
  );
}

/** Notebook files keep long text as a list of lines. */
function textOf(data: unknown): string {
  return typeof data === 'string' ? data : Array.isArray(data) ? data.join('') : '';
}
