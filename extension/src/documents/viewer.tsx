/** The page of a file: waits for the server, shows the view or what went wrong, and looks for changes. */
import type { Contents, ServerConnection } from '@jupyterlab/services';
import type { TranslationBundle } from '@jupyterlab/translation';
import { ReactWidget } from '@jupyterlab/ui-components';
import type { Message } from '@lumino/messaging';
import { Poll } from '@lumino/polling';

import type { ViewDocument } from '../view/document';
import type { ReportView as View } from '../view/view';
import { Unreadable, view } from './fetching';
import { netIcon } from './icon';

export interface ViewerOptions {
  /** Path of the document, with its drive. */
  path: () => string;
  contents: Contents.IManager;
  settings: ServerConnection.ISettings;
  trans: TranslationBundle;
  /** Opens the file as text; null for files that are none. */
  openAsText: (() => void) | null;
}

type State =
  | { is: 'waiting' }
  | { is: 'shown'; document: ViewDocument; made: number }
  | { is: 'failed'; problem: Unreadable };

const LOOK_MS = 3_000;
const LOOK_SELDOM_MS = 60_000;

export class Viewer extends ReactWidget {
  constructor(private readonly options: ViewerOptions) {
    super();
    this.addClass('qnb-Viewer');
    this.title.icon = netIcon;
    // Only while it is seen: a hidden tab asks nothing of the server.
    this.looking = new Poll({
      name: 'qnb:file-changes',
      auto: false,
      factory: () => this.look(),
      frequency: { interval: LOOK_MS, backoff: true, max: LOOK_SELDOM_MS },
      standby: () => !this.isVisible || document.hidden
    });
  }

  /** Ask the server anew; what is shown stays until it answers. */
  async load(): Promise<void> {
    const mine = ++this.asked;
    const { options } = this;
    if (this.state.is !== 'shown') {
      this.show_({ is: 'waiting' });
    }
    this.toggleClass('qnb-mod-busy', true);
    let next: State;
    try {
      const [{ ReportView }, seen, document] = await Promise.all([
        import('../view/view'),
        this.stamp(),
        view(options.contents.localPath(options.path()), options.settings, options.trans)
      ]);
      this.View = ReportView;
      this.seen = seen;
      next = { is: 'shown', document, made: mine };
    } catch (error) {
      const problem = error instanceof Unreadable ? error : new Unreadable(String(error));
      this.seen = await this.stamp().catch(() => '');
      next = { is: 'failed', problem };
    }
    if (mine === this.asked && !this.isDisposed) {
      this.toggleClass('qnb-mod-busy', false);
      this.show_(next);
    }
  }

  dispose(): void {
    this.looking.dispose();
    super.dispose();
  }

  protected onAfterShow(message: Message): void {
    super.onAfterShow(message);
    void this.looking.refresh();
  }

  protected onAfterAttach(message: Message): void {
    super.onAfterAttach(message);
    void this.looking.start();
  }

  protected render(): JSX.Element {
    const { state, View } = this;
    const { trans, openAsText } = this.options;
    if (state.is === 'shown' && View) {
      return <View key={state.made} document={state.document} trans={trans} embedded={false} />;
    }
    if (state.is === 'failed') {
      return (
        <div className="qnb-View qnb-Problem" role="alert">
          <h2>{trans.__('This file can not be shown')}</h2>
          <p>{state.problem.message}</p>
          {state.problem.hint && <p>{state.problem.hint}</p>}
          <p>
            <button type="button" onClick={() => void this.load()}>
              {trans.__('Try again')}
            </button>{' '}
            {openAsText && (
              <button type="button" onClick={openAsText}>
                {trans.__('Open as text')}
              </button>
            )}
          </p>
        </div>
      );
    }
    return (
      <div className="qnb-View qnb-Wait" role="status">
        {trans.__('Reading the file …')}
      </div>
    );
  }

  private async look(): Promise<void> {
    const stamp = await this.stamp();
    if (this.seen !== null && stamp !== this.seen) {
      this.seen = stamp;
      await this.load();
    }
  }

  /** What changes with the file. */
  private async stamp(): Promise<string> {
    const model = await this.options.contents.get(this.options.path(), { content: false });
    return `${model.last_modified} ${model.size ?? ''}`;
  }

  private show_(state: State): void {
    this.state = state;
    this.update();
  }

  private state: State = { is: 'waiting' };
  private asked = 0;
  private seen: string | null = null;
  private View: typeof View | null = null;
  private readonly looking: Poll;
}
