/**
 * Words of a `%qnn` line: the twin of qnb/magics/words.py, which says the rules. A test keeps the two equal.
 *
 * A word's text has its quotes taken off where they stand at its start or after `=`, `,` and `:`; brackets keep what is
 * in them together, with their quotes. A backslash is just a backslash.
 */

export interface Word {
  /** What it means. */
  text: string;
  start: number;
  end: number;
  /** The quote or bracket that would close it; empty if it is closed. */
  waitsFor: string;
}

const CLOSING: Record<string, string> = { '[': ']', '(': ')', '{': '}' };
/** What Python's `str.isspace` takes for space; JavaScript's `\s` differs in a few control characters. */
const SPACE = /[\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]/;

/** Split a line, forgiving what is not closed; what follows a `#` is a comment. */
export function split(line: string): Word[] {
  const words: Word[] = [];
  let at = 0;
  while (at < line.length) {
    const char = line.charAt(at);
    if (SPACE.test(char)) {
      at += 1;
    } else if (char === '#') {
      break;
    } else {
      const word = wordAt(line, at);
      words.push(word);
      at = word.end;
    }
  }
  return words;
}

function wordAt(line: string, start: number): Word {
  let text = '';
  const brackets: string[] = [];
  let quote = '';
  let at = start;
  for (; at < line.length; at += 1) {
    const char = line.charAt(at);
    const closing = CLOSING[char];
    if (quote) {
      if (char !== quote || brackets.length) {
        text += char;
      }
      if (char === quote) {
        quote = '';
      }
    } else if ((char === '"' || char === "'") && (brackets.length || at === start || '=,:'.includes(line.charAt(at - 1)))) {
      quote = char;
      text += brackets.length ? char : '';
    } else if (!brackets.length && SPACE.test(char)) {
      break;
    } else {
      if (closing) {
        brackets.push(closing);
      } else if (brackets.length && char === brackets[brackets.length - 1]) {
        brackets.pop();
      }
      text += char;
    }
  }
  return { text, start, end: at, waitsFor: quote || (brackets[brackets.length - 1] ?? '') };
}

/**
 * Write a text so that it is one word of a magic's line and means itself, whatever is in it.
 *
 * Gives null where no such word exists: with a line break, or with both kinds of quotes among other things.
 */
export function quoted(text: string): string | null {
  if (/[\r\n\x0b\x0c\x1c-\x1e\x85\u2028\u2029\0]/.test(text)) {
    return null;
  }
  // A bare `;` or `?` at the line's end has a meaning of its own to the magic and to IPython.
  const bare = /[;?\\]$/.test(text) ? [] : [text];
  for (const candidate of [...bare, `"${text}"`, `'${text}'`]) {
    const words = split(candidate);
    const [only] = words;
    if (only && words.length === 1 && only.text === text && only.end === candidate.length && !only.waitsFor) {
      return candidate;
    }
  }
  return null;
}

/**
 * Keep IPython from replacing `{expression}` and `$name` in a magic's line, which it does before the words are read.
 *
 * It doubles what IPython would take for one; IPython leaves `$` alone between single quotes, brace by brace.
 */
export function literal(line: string): string {
  return line
    .split(/(?<=[{}])/)
    .map(piece =>
      piece
        .replace(/\$(?=[\w.])/g, (dollar, at: number) => (piece.slice(at).split("'").length % 2 ? dollar + dollar : dollar))
        .replace(/[{}]/, brace => brace + brace)
    )
    .join('');
}
