/** The panel as a widget of JupyterLab: it tells its state whether it is seen. */

import type { TranslationBundle } from '@jupyterlab/translation';
import { LabIcon, ReactWidget } from '@jupyterlab/ui-components';
import type { Message } from '@lumino/messaging';

import type { PanelState } from './state';
import { type Actions, Panel } from './view';

/** A chip with a layered net in it. */
export const qnnIcon = new LabIcon({
  name: 'qnb:qnn',
  svgstr: `<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24" fill="none">
  <g class="jp-icon3" stroke="#616161" stroke-width="1.6" stroke-linecap="round">
    <rect x="5" y="5" width="14" height="14" rx="2.5"/>
    <path d="M9 5V2M15 5V2M9 22v-3M15 22v-3M5 9H2M5 15H2M22 9h-3M22 15h-3"/>
    <path d="M9.3 9.3 14.7 12M9.3 14.7 14.7 12"/>
  </g>
  <g class="jp-icon3" fill="#616161"><circle cx="9" cy="9" r="1.7"/><circle cx="9" cy="15" r="1.7"/><circle cx="15" cy="12" r="1.7"/></g>
</svg>`
});

export class PanelWidget extends ReactWidget {
  constructor(
    private readonly _state: PanelState,
    private readonly _actions: Actions,
    private readonly _trans: TranslationBundle
  ) {
    super();
    this.id = 'qnb-panel';
    this.title.icon = qnnIcon;
    this.title.caption = _trans.__('QNN: target, running work, models and results, runtimes');
    this.node.tabIndex = -1;
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', _trans.__('QNN'));
    this.addClass('qnb-panel-host');
    _state.changed.connect(() => this.update(), this);
  }

  protected override render(): JSX.Element {
    return <Panel state={this._state} actions={this._actions} trans={this._trans} />;
  }

  /** The next Tab leads into the panel. */
  protected override onActivateRequest(msg: Message): void {
    super.onActivateRequest(msg);
    this.node.focus();
  }

  protected override onAfterShow(msg: Message): void {
    super.onAfterShow(msg);
    this._state.visible = true;
  }

  protected override onAfterHide(msg: Message): void {
    super.onAfterHide(msg);
    this._state.visible = false;
  }

  protected override onAfterAttach(msg: Message): void {
    super.onAfterAttach(msg);
    this._state.visible = this.isVisible;
  }

  override dispose(): void {
    this._state.dispose();
    super.dispose();
  }
}
