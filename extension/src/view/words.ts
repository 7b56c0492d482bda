/** Values as words: the same forms as qnb's tables in Python (`qnb.display.style`). */
import type { Cell } from './document';

/** Three significant digits at least, with separators of thousands; whole numbers as they are. */
export function number(value: number, whole = false): string {
  if (Number.isNaN(value)) {
    return 'n/a';
  }
  if (!Number.isFinite(value)) {
    return value > 0 ? '∞' : '-∞';
  }
  if (whole || value === 0) {
    return value.toLocaleString('en-US', { maximumFractionDigits: 0 });
  }
  const shown = Math.abs(value) >= 100 ? value : Number(value.toPrecision(3));
  const exponent = Math.floor(Math.log10(Math.abs(shown)));
  if (exponent <= -4 || exponent >= 12) {
    return value.toExponential(2).replace(/e([+-])(\d)$/, 'e$10$2');
  }
  const digits = Math.max(0, 2 - exponent);
  return shown.toLocaleString('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** A count with a letter for its thousands: 950, 12.5 k, 3.10 M. */
export function compact(value: number): string {
  for (const [power, letter] of [
    [1e12, 'T'],
    [1e9, 'G'],
    [1e6, 'M'],
    [1e3, 'k']
  ] as const) {
    if (Math.abs(value) >= power) {
      return `${number(value / power)} ${letter}`;
    }
  }
  return number(value, Number.isInteger(value));
}

/** One line without control and direction characters, so that no name can steer the layout. */
export function clean(words: string): string {
  return words
    .replace(/[^\S ]+/gu, ' ')
    .replace(/[\p{Cc}\p{Cf}\p{Cs}]/gu, '')
    .replace(/ {2,}/g, ' ')
    .trim();
}

/** Shortened in its middle: names of tensors differ at both ends. */
export function elide(words: string, width: number): string {
  const line = clean(words);
  if (line.length <= width) {
    return line;
  }
  const head = Math.floor((width - 1) / 2);
  return `${line.slice(0, head)}…${line.slice(line.length - (width - 1 - head))}`;
}

/** Tells a sentence, which can be wrapped, from a name, which can't. */
export function isProse(words: string): boolean {
  return words.length > 40 && words.split(' ').length > 3;
}

/** A single value, such as a fact. */
export function plain(value: Cell): string {
  if (value === null) {
    return '–';
  }
  if (typeof value === 'boolean') {
    return value ? 'yes' : 'no';
  }
  return typeof value === 'number' ? number(value, Number.isInteger(value)) : clean(value);
}
