/** Lines that are made of steps, and what is offered at a line's end. The steps here have the shape that the route gives. */
import { describe, expect, it } from 'vitest';

import { offersFor } from '../src/words/offers';
import { type Step, type StepOption, written } from '../src/words/steps';

function option(name: string, kind: string, more: Partial<StepOption> = {}): StepOption {
  return { name, kind, help: `about ${name}`, choices: [], default: '', ...more };
}

const profile: Step = {
  name: 'profile',
  summary: 'Time a model.',
  line: '%qnn profile BUILD [DATA]',
  options: [
    option('BUILD', 'model'),
    option('DATA', 'data'),
    option('--backends', 'htp|gpu|cpu', { choices: ['htp', 'gpu', 'cpu'], default: 'htp,gpu,cpu' }),
    option('--soc', 'SOC,SOC'),
    option('--mode', 'fast|exact', { choices: ['fast', 'exact'] }),
    option('--ops', 'flag', { default: 'on' }),
    option('--shapes', 'NAME=DIMS')
  ]
};
const compare: Step = { name: 'compare', summary: 'Compare.', line: '%qnn compare BUILDS …', options: [option('BUILDS', 'model')] };
const STEPS = [profile, compare];
const SOCS = [
  { part: 'SM8650', name: 'Snapdragon 8 Gen 3', hexagon_arch: 'v75' },
  { part: 'SM8550', name: 'Snapdragon 8 Gen 2', hexagon_arch: 'v73' }
];

describe('written', () => {
  it('puts what has a place in its place, and options behind', () => {
    expect(written(profile, { BUILD: 'net', DATA: 'x[:4]', '--soc': 'Snapdragon 8 Gen 3', '--ops': false }, 't')).toEqual({
      line: '%qnn profile net x[:4] --soc "Snapdragon 8 Gen 3" --no-ops -o t',
      problems: []
    });
    expect(written(compare, { BUILDS: 'a  b' }).line).toBe('%qnn compare a b');
  });
  it('says what is missing, unknown or can not be written', () => {
    expect(written(profile, {}).problems).toEqual(['BUILD is missing']);
    expect(written(compare, { BUILDS: 'a', '--no': 'x' }).problems).toEqual(['compare has no option --no']);
    expect(written(profile, { BUILD: 'a\nb' }).problems).toHaveLength(1);
    expect(written(profile, { BUILD: '--help' }).problems).toHaveLength(1);
    expect(written(profile, { BUILD: 'a' }, '1x').problems).toHaveLength(1);
  });
  it('keeps IPython from evaluating a name', () => {
    expect(written(profile, { BUILD: '{1+1}.onnx' }).line).toBe('%qnn profile {{1+1}}.onnx');
  });
});

describe('offersFor', () => {
  const texts = (rest: string): string[] => offersFor(rest, STEPS, SOCS).offers.map(offer => offer.text);

  it('offers steps first', () => {
    expect(texts(' ')).toEqual(['profile', 'compare']);
    expect(offersFor(' CO', STEPS, SOCS)).toMatchObject({ start: 1, offers: [{ text: 'compare' }] });
    expect(texts(' help pro')).toEqual(['profile']);
    expect(texts(' nosuch --')).toEqual([]);
  });
  it('offers options that are not given yet, a switch the other way round', () => {
    expect(texts(' profile q --')).toEqual(['--backends', '--soc', '--mode', '--no-ops', '--shapes', '--out', '--help']);
    expect(texts(' profile q --mode fast --no-ops --soc SM8650 --shapes a=1 -o t --')).toEqual(['--backends', '--soc', '--shapes', '--help']);
    expect(offersFor(' profile q --mo', STEPS, SOCS).offers[0]?.help).toBe('about --mode');
  });
  it('offers choices, and after a comma those that are left', () => {
    expect(texts(' profile q --mode ')).toEqual(['fast', 'exact']);
    expect(offersFor(' profile q --mode=e', STEPS, SOCS)).toMatchObject({ start: 18, offers: [{ text: 'exact' }] });
    expect(texts(' profile q --backends htp,')).toEqual(['htp,gpu', 'htp,cpu']);
  });
  it('offers SoCs by part, and by name in quotes', () => {
    expect(texts(' profile q --soc ')).toEqual(['SM8650', 'SM8550', '"Snapdragon 8 Gen 3"', '"Snapdragon 8 Gen 2"']);
    expect(texts(' profile q --soc SM8650,SM8')).toEqual(['SM8650,SM8550']);
    expect(texts(` profile q --soc 'snap`)).toEqual(["'Snapdragon 8 Gen 3'", "'Snapdragon 8 Gen 2'"]);
  });
  it('leaves variables, files and new names to the kernel and the user', () => {
    expect(texts(' profile q')).toEqual([]);
    expect(texts(' profile q -o ')).toEqual([]);
  });
});
