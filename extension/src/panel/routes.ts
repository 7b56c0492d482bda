/** qnb's routes on the Jupyter server, typed; an answer of another shape is an error that says so. */

import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

import type { Step } from '../words/steps';

export interface Soc {
  part: string;
  name: string;
  hexagon_arch: string;
  fp16: boolean | null;
}

export interface Socs {
  target: string;
  socs: Soc[];
}

/** A file or saved result below the server's root. */
export interface Entry {
  path: string;
  kind: string;
  title: string;
  digest: string | null;
  soc: string | null;
  calibration: string | null;
  parents: string[];
  made: string | null;
  bytes: number | null;
}

export interface Workspace {
  root: string;
  entries: Entry[];
  cut: boolean;
}

/** Work that runs in some process of this user. */
export interface Job {
  id: string;
  title: string;
  line: string;
  pid: number;
  started: string;
  done: number;
  total: number | null;
  text: string;
  cancelled: boolean;
}

export interface Table {
  title: string;
  columns: string[];
  rows: unknown[][];
}

/** What the panel reads of the view document of `doctor`. */
export interface Doctor {
  title: string;
  tables: Table[];
}

/** What a route, or the way to it, failed with. */
export class RouteError extends Error {
  constructor(
    message: string,
    readonly hint: string = '',
    readonly status: number = 0
  ) {
    super(message);
    this.name = 'RouteError';
  }
}

/** The routes that the panel, the commands and the completion use. */
export interface Routes {
  doctor(): Promise<Doctor>;
  socs(): Promise<Socs>;
  setTarget(soc: string): Promise<void>;
  workspace(): Promise<Workspace>;
  jobs(): Promise<Job[]>;
  cancel(id: string): Promise<void>;
  steps(): Promise<Step[]>;
}

type Fetch = (path: string, init: RequestInit) => Promise<Response>;

/** Ask the server that the page came from, with its token and its XSRF cookie. */
export function serverFetch(settings: ServerConnection.ISettings): Fetch {
  return (path, init) => ServerConnection.makeRequest(URLExt.join(settings.baseUrl, 'qnb', path), init, settings);
}

/** Make the routes from a way to ask; tests give one of their own. */
export function routesOf(fetch: Fetch): Routes {
  async function ask(path: string, init: RequestInit = {}): Promise<unknown> {
    let answer: Response;
    try {
      answer = await fetch(path, init);
    } catch (error) {
      throw new RouteError('The Jupyter server does not answer.', 'See whether it still runs, then refresh.');
    }
    const text = await answer.text();
    let said: unknown = null;
    try {
      said = text ? JSON.parse(text) : null;
    } catch {
      // What stands before the server may answer with a page of its own.
    }
    if (answer.ok) {
      return said;
    }
    const { message, hint } = (said ?? {}) as { message?: unknown; hint?: unknown };
    if (answer.status === 404 && typeof hint !== 'string') {
      throw new RouteError(
        "qnb's server extension is not enabled.",
        'Run this in a terminal, then restart Jupyter: jupyter server extension enable qnb.server',
        404
      );
    }
    throw new RouteError(
      typeof message === 'string' && message ? message : `The server answered ${answer.status}.`,
      typeof hint === 'string' ? hint : '',
      answer.status
    );
  }

  async function list<T>(path: string, key: string): Promise<{ said: Record<string, unknown>; items: T[] }> {
    const said = await ask(path);
    const items = said !== null && typeof said === 'object' ? (said as Record<string, unknown>)[key] : undefined;
    if (!Array.isArray(items)) {
      throw new RouteError(
        `The answer of qnb/${path} is not what this extension knows.`,
        'The extension and the Python package qnb may be of different versions: reinstall qnb and reload the page.'
      );
    }
    return { said: said as Record<string, unknown>, items: items as T[] };
  }

  return {
    doctor: async () => {
      const { said, items } = await list<Table>('doctor', 'tables');
      return { title: String(said['title'] ?? ''), tables: items };
    },
    socs: async () => {
      const { said, items } = await list<Soc>('socs', 'socs');
      return { target: String(said['target'] ?? ''), socs: items };
    },
    setTarget: async soc => {
      await ask('target', { method: 'PUT', body: JSON.stringify({ soc }) });
    },
    workspace: async () => {
      const { said, items } = await list<Entry>('workspace', 'entries');
      return { root: String(said['root'] ?? ''), entries: items, cut: said['cut'] === true };
    },
    jobs: async () => (await list<Job>('jobs', 'jobs')).items,
    cancel: async id => {
      await ask(`jobs/${encodeURIComponent(id)}`, { method: 'DELETE' });
    },
    steps: async () => (await list<Step>('steps', 'steps')).items
  };
}
