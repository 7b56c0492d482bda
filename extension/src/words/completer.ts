/** Completion of `%qnn` lines, above the kernel's, with which JupyterLab merges it. */

import type { CompletionHandler, ICompletionContext, ICompletionProvider } from '@jupyterlab/completer';

import type { Knowledge } from './knowledge';
import { magicOf } from './line';
import { offersFor } from './offers';

const NOTHING = (at: number): CompletionHandler.ICompletionItemsReply => ({ start: at, end: at, items: [] });

export class QnnCompletion implements ICompletionProvider {
  readonly identifier = 'qnb:completion';
  readonly rank = 1000;
  readonly renderer = null;

  constructor(private readonly _knowledge: Knowledge) {}

  /** Where a line can run: in notebooks and consoles, which have sessions; not in files. */
  async isApplicable(context: ICompletionContext): Promise<boolean> {
    return Boolean(context.session) && lineUpToCursor(context) !== null;
  }

  async fetch(request: CompletionHandler.IRequest): Promise<CompletionHandler.ICompletionItemsReply> {
    const { text, offset } = request;
    const lineStart = text.lastIndexOf('\n', offset - 1) + 1;
    const line = text.slice(lineStart, offset);
    const magic = magicOf(line);
    if (!magic || magic.rest === line.length) {
      return NOTHING(offset);
    }
    const [steps, socs] = await Promise.all([this._knowledge.steps(), this._knowledge.socs()]);
    const { start, offers } = offersFor(line.slice(magic.rest), steps, socs);
    return {
      start: lineStart + magic.rest + start,
      end: offset,
      items: offers.map(offer => ({
        label: offer.text,
        insertText: offer.text,
        type: offer.type,
        documentation: offer.help
      }))
    };
  }
}

function lineUpToCursor({ editor }: ICompletionContext): string | null {
  const cursor = editor?.getCursorPosition();
  const line = cursor && editor?.getLine(cursor.line);
  return line && magicOf(line.slice(0, cursor.column)) ? line : null;
}
