/** What the panel shows, and when it asks for it. Knows the routes, nothing of widgets. */

import { Poll } from '@lumino/polling';
import { type ISignal, Signal } from '@lumino/signaling';

import { type Doctor, type Job, RouteError, type Routes, type Socs, type Workspace } from './routes';

/** One section: nothing yet, what was answered, or why there is no answer; the last answer stays while it is asked anew. */
export interface Loaded<T> {
  value: T | null;
  error: RouteError | null;
  loading: boolean;
}

const EMPTY = { value: null, error: null, loading: false } as const;
const BACKOFF = 3;
const SLOWEST_MS = 60_000;

/** State of the panel. */
export class PanelState {
  doctor: Loaded<Doctor> = EMPTY;
  socs: Loaded<Socs> = EMPTY;
  workspace: Loaded<Workspace> = EMPTY;
  jobs: Loaded<Job[]> = EMPTY;
  /** Jobs that were asked to stop here and still run. */
  readonly stopping = new Set<string>();
  /** Why the last choice of a SoC or the last wish to stop came to nothing. */
  refused: RouteError | null = null;

  private _visible = false;
  private readonly _changed = new Signal<this, void>(this);
  private readonly _poll: Poll;

  constructor(
    private readonly _routes: Routes,
    seconds: number
  ) {
    this._poll = new Poll({
      name: 'qnb:jobs',
      auto: false,
      factory: () => this._lookForJobs(),
      frequency: { interval: seconds * 1000, backoff: BACKOFF, max: Math.max(SLOWEST_MS, seconds * 1000) },
      // A hidden panel asks only while something runs, a hidden page never.
      standby: () => (!this._visible && !this.running ? true : 'when-hidden')
    });
  }

  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** Whether work runs, as far as is known. */
  get running(): boolean {
    return (this.jobs.value?.length ?? 0) > 0;
  }

  /** Say whether the panel is seen; what it has not yet it asks for when it is first seen. */
  set visible(visible: boolean) {
    const appears = visible && !this._visible;
    this._visible = visible;
    if (appears) {
      void this._poll.refresh();
      void this.refresh('socs');
      void this.refresh('workspace');
      if (!this.doctor.value && !this.doctor.loading) {
        void this.refresh('doctor');
      }
    }
  }

  /** Seconds between two looks for jobs. */
  set interval(seconds: number) {
    const interval = seconds * 1000;
    this._poll.frequency = { interval, backoff: BACKOFF, max: Math.max(SLOWEST_MS, interval) };
  }

  /** Ask anew for one section. */
  async refresh(section: 'doctor' | 'socs' | 'workspace' | 'jobs'): Promise<void> {
    switch (section) {
      case 'doctor':
        return this._load(() => this._routes.doctor(), this.doctor, next => (this.doctor = next));
      case 'socs':
        return this._load(() => this._routes.socs(), this.socs, next => (this.socs = next));
      case 'workspace':
        return this._load(() => this._routes.workspace(), this.workspace, next => (this.workspace = next));
      case 'jobs':
        return this._poll.refresh();
    }
  }

  /** Choose the SoC that notebooks build for; what stands there is what the server then says. */
  async choose(part: string): Promise<void> {
    await this._try(() => this._routes.setTarget(part));
    await this.refresh('socs');
  }

  /** Ask a job to stop. */
  async cancel(id: string): Promise<void> {
    this.stopping.add(id);
    this._changed.emit();
    if (!(await this._try(() => this._routes.cancel(id)))) {
      this.stopping.delete(id);
    }
    await this._poll.refresh();
  }

  dispose(): void {
    this._poll.dispose();
    Signal.clearData(this);
  }

  private async _try(act: () => Promise<void>): Promise<boolean> {
    try {
      await act();
      this.refused = null;
    } catch (error) {
      this.refused = asRouteError(error);
    }
    this._changed.emit();
    return this.refused === null;
  }

  private async _lookForJobs(): Promise<void> {
    const before = this.jobs.value ?? [];
    let failed: unknown = null;
    try {
      this.jobs = { value: await this._routes.jobs(), error: null, loading: false };
    } catch (error) {
      failed = error;
      // How far they are is not known any more; a job that is shown for ever would be made up.
      this.jobs = { value: null, error: asRouteError(error), loading: false };
    }
    const now = new Set(this.jobs.value?.map(job => job.id));
    this.stopping.forEach(id => now.has(id) || this.stopping.delete(id));
    this._changed.emit();
    if (!failed && this._visible && before.some(job => !now.has(job.id))) {
      void this.refresh('workspace'); // what has ended may have written something
    }
    if (failed) {
      throw failed; // the poll waits longer then
    }
  }

  private async _load<T>(ask: () => Promise<T>, old: Loaded<T>, set: (next: Loaded<T>) => void): Promise<void> {
    set({ ...old, loading: true });
    this._changed.emit();
    try {
      set({ value: await ask(), error: null, loading: false });
    } catch (error) {
      set({ value: null, error: asRouteError(error), loading: false });
    }
    this._changed.emit();
  }
}

function asRouteError(error: unknown): RouteError {
  return error instanceof RouteError ? error : new RouteError(String(error));
}
