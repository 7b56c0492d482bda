/** Where a `%qnn` stands in Python source, and what the parts of its line are. */

import { split, type Word } from './split';

export type Role = 'magic' | 'step' | 'option' | 'value' | 'argument' | 'comment';

/** A part of a line; positions are those of the line. */
export interface Part {
  role: Role;
  from: number;
  to: number;
}

/** `%qnn …`, `x = %qnn …` or `%%qnn …`, as IPython takes them. */
const LINE = /^(\s*(?:[^=%#'"]+=\s*)?)(%{1,2}qnn)(?=\s|$)/;

/** The magic of a line. */
export interface Magic {
  /** Where `%` stands. */
  from: number;
  /** Where the words begin: right after `qnn`. */
  rest: number;
  /** Whether it is `%%qnn`, whose cell is its body. */
  cell: boolean;
}

/** Find the magic of a line, or null. */
export function magicOf(line: string): Magic | null {
  const found = LINE.exec(line);
  const magic = found?.[2];
  if (!found || !magic) {
    return null;
  }
  const from = (found[1] ?? '').length;
  const cell = magic.startsWith('%%');
  // A cell magic is the first thing of its line.
  return cell && found[1]?.trim() ? null : { from, rest: from + magic.length, cell };
}

/**
 * Take a line apart.
 *
 * @param line - one line of source.
 * @param flags - whether an option takes no value; unknown options are taken to have one.
 */
export function partsOf(line: string, flags: (step: string, option: string) => boolean = () => false): Part[] {
  const magic = magicOf(line);
  if (!magic) {
    return [];
  }
  const parts: Part[] = [{ role: 'magic', from: magic.from, to: magic.rest }];
  const rest = line.slice(magic.rest);
  const words = split(rest);
  let step = '';
  let waiting = false;
  words.forEach((word, index) => {
    const from = magic.rest + word.start;
    const to = magic.rest + word.end;
    if (index === 0) {
      step = word.text;
      parts.push({ role: step.startsWith('-') ? 'option' : 'step', from, to });
    } else if (isOption(word, rest)) {
      const equals = rest.slice(word.start, word.end).indexOf('=');
      const end = equals < 0 ? to : from + equals;
      parts.push({ role: 'option', from, to: end });
      if (equals >= 0 && end + 1 < to) {
        parts.push({ role: 'value', from: end + 1, to });
      }
      waiting = equals < 0 && !flags(step, word.text);
    } else {
      parts.push({ role: waiting ? 'value' : 'argument', from, to });
      waiting = false;
    }
  });
  const last = words[words.length - 1];
  const hash = rest.indexOf('#', last ? last.end : 0);
  if (hash >= 0) {
    parts.push({ role: 'comment', from: magic.rest + hash, to: line.length });
  }
  return parts;
}

/** `--name` or `-o`; not a negative number, and not what is in quotes. */
function isOption(word: Word, rest: string): boolean {
  return /^--?[A-Za-z]/.test(rest.slice(word.start, word.end));
}
