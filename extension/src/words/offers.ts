/**
 * What fits at the end of a `%qnn` line: steps, options with their help, choices, SoCs.
 *
 * Variables and files are the kernel's to offer (qnb/magics/completion.py). What both offer is written the same way here
 * and there, so that JupyterLab shows it once.
 */

import { split } from './split';
import { flagOf, isList, isMapping, isSwitch, negativeOf, placeOf, type Step, type StepOption } from './steps';

/** As much of a SoC as a completion shows. */
export interface KnownSoc {
  part: string;
  name: string;
  hexagon_arch: string;
}

export interface Offer {
  /** What is inserted in place of the fragment. */
  text: string;
  /** Kind as IPython names it. */
  type: 'magic' | 'param' | 'constant';
  help: string;
}

export interface Offers {
  /** Where the fragment begins that an offer takes the place of. */
  start: number;
  offers: Offer[];
}

/** Offer for the words after `%qnn`, up to the cursor. */
export function offersFor(rest: string, steps: readonly Step[], socs: readonly KnownSoc[]): Offers {
  const words = split(rest);
  const last = words[words.length - 1];
  const open = last && last.end === rest.length ? last : undefined;
  const fragment = open ? rest.slice(open.start) : '';
  const start = open ? open.start : rest.length;
  const before = words.slice(0, open ? -1 : undefined).map(word => word.text);
  if (!before.length || (before[0] === 'help' && before.length === 1)) {
    return { start, offers: starting(fragment, steps.map(step => ({ text: step.name, type: 'magic', help: `${step.summary}\n\n${step.line}` }))) };
  }
  const step = steps.find(each => each.name === before[0]);
  if (!step) {
    return { start, offers: [] };
  }
  const said = read(step, before.slice(1));
  const equals = fragment.startsWith('--') ? fragment.indexOf('=') : -1;
  if (equals > 0) {
    const option = step.options.find(each => flagOf(each) === fragment.slice(0, equals));
    return { start: start + equals + 1, offers: option ? values(option, fragment.slice(equals + 1), socs) : [] };
  }
  if (said.waiting) {
    return { start, offers: said.waiting === OUT ? [] : values(said.waiting, fragment, socs) };
  }
  if (fragment && !fragment.startsWith('-')) {
    return { start, offers: [] };
  }
  return { start, offers: starting(fragment, unused(step, said.used)) };
}

const OUT = 'out';

interface Said {
  used: Set<string>;
  /** The option whose value comes next. */
  waiting: StepOption | typeof OUT | null;
}

function read(step: Step, words: readonly string[]): Said {
  const used = new Set<string>();
  let waiting: Said['waiting'] = null;
  for (const word of words) {
    const [name = ''] = word.split('=', 1);
    const option = step.options.find(each => name === flagOf(each) || (isSwitch(each) && name === negativeOf(each)));
    if (waiting) {
      waiting = null;
    } else if (name === '-o' || name === '--out') {
      used.add(OUT);
      waiting = word.includes('=') ? null : OUT;
    } else if (option) {
      used.add(option.name);
      waiting = isSwitch(option) || word.includes('=') ? null : option;
    }
  }
  return { used, waiting };
}

function unused(step: Step, used: ReadonlySet<string>): Offer[] {
  const options = step.options.filter(
    option => placeOf(step, option) === 'option' && (!used.has(option.name) || isMapping(option) || isList(option))
  );
  return [
    ...options.map<Offer>(option => ({
      text: isSwitch(option) && option.default === 'on' ? negativeOf(option) : flagOf(option),
      type: 'param',
      help: helpOf(option)
    })),
    ...(used.has(OUT) ? [] : [{ text: '--out', type: 'param' as const, help: 'Bind the result to this notebook variable; it is shown all the same.' }]),
    { text: '--help', type: 'param', help: step.summary }
  ];
}

function helpOf(option: StepOption): string {
  return option.default ? `${option.help}\n\nDefault: ${option.default}` : option.help;
}

function values(option: StepOption, fragment: string, socs: readonly KnownSoc[]): Offer[] {
  const known: Offer[] = option.choices.map(choice => ({ text: choice, type: 'constant', help: option.help }));
  if (option.name === '--soc') {
    const about = (soc: KnownSoc): string => [soc.part, soc.name, soc.hexagon_arch].filter(Boolean).join(', ');
    known.push(...socs.map<Offer>(soc => ({ text: soc.part, type: 'constant', help: about(soc) })));
    const named = new Map(socs.filter(soc => soc.name).map(soc => [soc.name, about(soc)]));
    named.forEach((help, name) => known.push({ text: name, type: 'constant', help }));
  }
  const comma = isList(option) ? fragment.lastIndexOf(',') + 1 : 0;
  const head = fragment.slice(0, comma);
  const taken = head.split(',');
  return starting(fragment.slice(comma), known.filter(offer => !taken.includes(offer.text)), head);
}

/** Those that begin with the fragment, whatever its case; in quotes where they have spaces. */
function starting(fragment: string, offers: readonly Offer[], head = ''): Offer[] {
  const first = fragment.charAt(0);
  const quote = first === '"' || first === "'" ? first : '';
  const bare = fragment.replace(/^["']+/, '').toLowerCase();
  return offers
    .filter(offer => offer.text.toLowerCase().startsWith(bare))
    .map(offer => {
      const mark = quote || (offer.text.includes(' ') ? '"' : '');
      return { ...offer, text: `${head}${mark}${offer.text}${mark}` };
    });
}
