/** What qnb's plugins share: the routes, what was learnt from them, and the settings. */

import type { ISettingRegistry } from '@jupyterlab/settingregistry';
import { Token } from '@lumino/coreutils';
import { type ISignal, Signal } from '@lumino/signaling';

import type { Routes } from './panel/routes';
import type { Knowledge } from './words/knowledge';

export interface IQnb {
  readonly routes: Routes;
  readonly knowledge: Knowledge;
  readonly settings: QnbSettings;
}

export const IQnb = new Token<IQnb>('qnb:IQnb', "qnb's routes and settings.");

/** The settings of schema/settings.json; its defaults until they are read. */
export class QnbSettings {
  refreshInterval = 2;
  showAtStart = false;
  template = 'quickstart';
  /** When they have been read. */
  read: Promise<void> = Promise.resolve();

  private readonly _changed = new Signal<this, void>(this);

  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** Read them now and whenever they change. */
  follow(settings: ISettingRegistry.ISettings): void {
    const take = (): void => {
      const { refreshInterval, showAtStart, template } = settings.composite;
      this.refreshInterval = typeof refreshInterval === 'number' ? refreshInterval : 2;
      this.showAtStart = showAtStart === true;
      this.template = typeof template === 'string' ? template : 'quickstart';
      this._changed.emit();
    };
    settings.changed.connect(take);
    take();
  }
}
