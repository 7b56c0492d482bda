/** Words of a `%qnn` line. Oracle: words.json, which a Python test compares with qnb.magics.words and with IPython. */
import { describe, expect, it } from 'vitest';

import { magicOf, partsOf } from '../src/words/line';
import { literal, quoted, split } from '../src/words/split';
import cases from './words.json';

describe('split', () => {
  it.each(cases.lines)('$line', ({ line, words }) => {
    expect(split(line).map(({ text, start, end, waitsFor }) => [text, start, end, waitsFor])).toEqual(words);
  });
});

describe('a line of texts', () => {
  it.each(cases.written)('$line', ({ texts, line }) => {
    expect(literal(texts.map(text => quoted(text)).join(' '))).toBe(line);
  });

  it('has no word for a line break, nor for both kinds of quotes around a space', () => {
    expect(quoted('a\nb')).toBeNull();
    expect(quoted(`it's "a b`)).toBeNull();
  });
});

describe('magicOf', () => {
  it.each(['%qnn', '%qnn doctor', '  %qnn x', 'a = %qnn x', 'a, b = %qnn x', 'c[0] = %qnn x', '%%qnn profile q'])('finds %s', line => {
    expect(magicOf(line)?.from).toBe(line.indexOf('%'));
  });
  it.each(['x = 3 % qnn', '%qnnx', 'print("%qnn")', '# %qnn', 'a = %%qnn x', '%time %qnn x', 'a == %qnn'])('leaves %s alone', line => {
    expect(magicOf(line)).toBeNull();
  });
});

describe('partsOf', () => {
  const shown = (line: string): string[] => partsOf(line, (_step, option) => option === '--ops').map(p => `${p.role}:${line.slice(p.from, p.to)}`);

  it('tells steps, arguments, options, values and comments apart', () => {
    expect(shown('q = %qnn profile net images[:4, 0] --soc "8 Gen 3" --ops x --runs=5 -o t # why')).toEqual([
      'magic:%qnn',
      'step:profile',
      'argument:net',
      'argument:images[:4, 0]',
      'option:--soc',
      'value:"8 Gen 3"',
      'option:--ops',
      'argument:x',
      'option:--runs',
      'value:5',
      'option:-o',
      'value:t',
      'comment:# why'
    ]);
  });
  it('takes a number for a number and quotes for no option', () => {
    expect(shown('%qnn check q x --min-sqnr -3 "--x"')).toEqual([
      'magic:%qnn', 'step:check', 'argument:q', 'argument:x', 'option:--min-sqnr', 'value:-3', 'argument:"--x"'
    ]);
  });
  it('never reaches outside of its line', () => {
    for (const { line } of cases.lines) {
      const whole = `%qnn ${line}`;
      let end = 0;
      for (const part of partsOf(whole)) {
        expect(part.from).toBeGreaterThanOrEqual(end);
        expect(part.to).toBeGreaterThan(part.from);
        end = part.to;
      }
      expect(end).toBeLessThanOrEqual(whole.length);
    }
  });
});
