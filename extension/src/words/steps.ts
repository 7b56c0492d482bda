/** The steps as `GET qnb/steps` tells them, and the `%qnn` line that is made of one. */

import { literal, quoted } from './split';

export interface StepOption {
  /** As the usage writes it: `--per-channel`, and `MODEL` where it is given by its place. */
  name: string;
  help: string;
  /** `flag`, what object it is (`model`, `data`, …), or what stands for its value: `SOC,SOC`, `N`, `htp|gpu|cpu`. */
  kind: string;
  choices: string[];
  /** As one would write it; empty for none. */
  default: string;
}

export interface Step {
  name: string;
  summary: string;
  options: StepOption[];
  /** Usage: `%qnn convert MODEL`. */
  line: string;
}

/** How it is written with its name: `--per-channel`; what has a place can be given so too. */
export function flagOf(option: StepOption): string {
  return option.name.startsWith('--') ? option.name : `--${option.name.toLowerCase().replace(/_/g, '-')}`;
}

/** How a switch that is on is turned off: `--no-per-channel`. */
export function negativeOf(option: StepOption): string {
  return `--no-${flagOf(option).slice(2)}`;
}

export function isSwitch(option: StepOption): boolean {
  return option.kind === 'flag';
}

/** Whether it takes several values with commas. */
export function isList(option: StepOption): boolean {
  return option.kind.includes(',') || option.default.includes(',');
}

/** Whether it may be given more than once: `--shapes a=1x3 --shapes b=1x4`. */
export function isMapping(option: StepOption): boolean {
  return option.kind.startsWith('NAME=');
}

export type Place = 'required' | 'optional' | 'many' | 'option';

/** How it is given; the usage line writes `[X]` for what may be left out, and `X …` for many. */
export function placeOf(step: Step, option: StepOption): Place {
  if (option.name.startsWith('--')) {
    return 'option';
  }
  const words = step.line.split(/\s+/);
  const at = words.findIndex(word => word.replace(/^\[|\]$/g, '') === option.name);
  return words[at + 1] === '…' ? 'many' : words[at]?.startsWith('[') ? 'optional' : 'required';
}

/** A line, and what keeps it from running; both are shown. */
export interface Written {
  line: string;
  problems: string[];
}

/**
 * Write the line of a step.
 *
 * @param step - the step.
 * @param values - what is given, by the option's name: text, or true and false for a switch; several of `many` apart by spaces.
 * @param out - variable that the result is bound to; empty for none.
 */
export function written(step: Step, values: Readonly<Record<string, string | boolean>>, out = ''): Written {
  const problems: string[] = [];
  const words: string[] = [];
  const options: string[] = [];
  const known = new Set(step.options.map(option => option.name));
  problems.push(...Object.keys(values).filter(name => !known.has(name)).map(name => `${step.name} has no option ${name}`));
  let skipped = false;
  for (const option of step.options) {
    const value = values[option.name];
    const place = placeOf(step, option);
    const empty = value === undefined || value === '';
    if (empty && place === 'required') {
      problems.push(`${option.name} is missing`);
      words.push(option.name);
    } else if (empty) {
      skipped ||= place === 'optional';
    } else if (typeof value === 'boolean') {
      options.push(value ? flagOf(option) : negativeOf(option));
    } else if (place === 'many') {
      words.push(...value.split(/\s+/).filter(Boolean));
    } else {
      const word = quoted(value);
      const target = place === 'option' || skipped ? options : words;
      if (word === null || (/^-\D/.test(value) && target === words)) {
        problems.push(`${option.name}: ${value} can't be written on one line`);
      }
      target.push(...(target === options ? [flagOf(option)] : []), word ?? value);
    }
  }
  if (out && !/^[A-Za-z_]\w*$/.test(out)) {
    problems.push(`${out} can't name a variable`);
  }
  const all = [step.name, ...words, ...options, ...(out ? ['-o', out] : [])];
  return { line: `%qnn ${literal(all.join(' '))}`, problems };
}
