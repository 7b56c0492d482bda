/** Colours for the parts of a `%qnn` line in Python cells and files. */

import { syntaxTree } from '@codemirror/language';
import { type Extension, type Range, RangeSetBuilder } from '@codemirror/state';
import { Decoration, type DecorationSet, EditorView, ViewPlugin, type ViewUpdate } from '@codemirror/view';
import type { CodeEditor } from '@jupyterlab/codeeditor';

import { partsOf, type Role } from './line';

const MARKS = Object.fromEntries(
  (['magic', 'step', 'option', 'value', 'argument', 'comment'] satisfies Role[]).map(role => [
    role,
    Decoration.mark({ class: `qnb-cm-${role}` })
  ])
) as Record<Role, Decoration>;

const LONGEST_LINE = 2000;

/**
 * Make the extension of one editor.
 *
 * @param model - says what language it is; a cell learns it from its kernel, later than its text is shown.
 * @param flags - whether an option of a step takes no value.
 */
export function highlight(model: CodeEditor.IModel, flags: (step: string, option: string) => boolean): Extension {
  const isPython = (): boolean => /^text\/x-i?python/.test(model.mimeType);

  class Highlighter {
    decorations: DecorationSet;
    private _python = isPython();

    constructor(view: EditorView) {
      this.decorations = this._build(view);
    }

    update(update: ViewUpdate): void {
      const python = isPython();
      if (update.docChanged || update.viewportChanged || python !== this._python || syntaxTree(update.startState) !== syntaxTree(update.state)) {
        this._python = python;
        this.decorations = this._build(update.view);
      }
    }

    private _build(view: EditorView): DecorationSet {
      const found: Range<Decoration>[] = [];
      const { doc } = view.state;
      for (const { from, to } of this._python ? view.visibleRanges : []) {
        for (let at = from; at <= to; ) {
          const line = doc.lineAt(at);
          at = line.to + 1;
          if (line.length <= LONGEST_LINE && line.text.includes('%qnn') && !inString(view, line.from)) {
            for (const part of partsOf(line.text, flags)) {
              if (part.from < part.to) {
                found.push(MARKS[part.role].range(line.from + part.from, line.from + part.to));
              }
            }
          }
        }
      }
      const set = new RangeSetBuilder<Decoration>();
      found.forEach(range => set.add(range.from, range.to, range.value));
      return set.finish();
    }
  }

  return ViewPlugin.fromClass(Highlighter, { decorations: plugin => plugin.decorations });
}

/** Whether a line begins within a text of several lines. */
function inString(view: EditorView, at: number): boolean {
  const node = syntaxTree(view.state).resolveInner(at, -1);
  return node.name.includes('String') && node.from < at && node.to > at;
}
