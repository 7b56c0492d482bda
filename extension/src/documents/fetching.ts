/** Asks the server what is in a file. */
import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';
import type { TranslationBundle } from '@jupyterlab/translation';

import { isRefusal, readDocument, type ViewDocument } from '../view/document';

/** What went wrong, and what to do next; in words for the page. */
export class Unreadable extends Error {
  constructor(
    message: string,
    readonly hint = ''
  ) {
    super(message);
  }
}

/** The view document of a file or a saved result, by its path below the server's root. */
export async function view(
  path: string,
  settings: ServerConnection.ISettings,
  trans: TranslationBundle
): Promise<ViewDocument> {
  const address = URLExt.join(settings.baseUrl, 'qnb', 'view') + URLExt.objectToQueryString({ path });
  let response: Response;
  let body: unknown;
  try {
    response = await ServerConnection.makeRequest(address, { cache: 'no-store' }, settings);
    body = await response.json().catch(() => null);
  } catch (error) {
    if (error instanceof ServerConnection.NetworkError) {
      throw new Unreadable(trans.__('The server does not answer.'), trans.__('See whether it runs, then try again.'));
    }
    throw error;
  }
  if (!response.ok) {
    throw problem(response.status, body, trans);
  }
  const read = readDocument(body);
  if (!isRefusal(read)) {
    return read;
  }
  throw read.refused === 'format'
    ? new Unreadable(
        trans.__('The server speaks format %1, which this page does not know.', read.format),
        trans.__('Load the page again; if that does not help, update qnb where JupyterLab runs.')
      )
    : new Unreadable(trans.__('The answer of the server is damaged: %1.', read.what));
}

function problem(status: number, body: unknown, trans: TranslationBundle): Unreadable {
  const said = typeof body === 'object' && body !== null ? (body as Record<string, unknown>) : {};
  if (typeof said.message === 'string' && typeof said.hint === 'string') {
    return new Unreadable(said.message, said.hint);
  }
  if (status === 404) {
    return new Unreadable(
      trans.__("qnb's server extension is not active."),
      trans.__('Run: jupyter server extension enable qnb.server, and start JupyterLab again.')
    );
  }
  return new Unreadable(trans.__('The server answered with the status %1.', status));
}
