/** A step's options as a form, with the line that it makes shown as it is filled in. */

import type { TranslationBundle } from '@jupyterlab/translation';
import { ReactWidget } from '@jupyterlab/ui-components';
import { useId, useState } from 'react';

import { plain } from '../panel/format';
import { isList, isSwitch, placeOf, type Step, type StepOption, type Written, written } from '../words/steps';

export type Values = Record<string, string | boolean>;

/** What was filled in. */
export interface Filled {
  values: Values;
  out: string;
  run: boolean;
}

/** Names that fit an option in the notebook's kernel. */
export type Suggest = (step: Step, option: StepOption) => Promise<string[]>;

export class StepForm extends ReactWidget {
  constructor(
    private readonly _step: Step,
    private _filled: Filled,
    private readonly _suggest: Suggest,
    private readonly _trans: TranslationBundle
  ) {
    super();
  }

  getValue(): { filled: Filled; written: Written } {
    return { filled: this._filled, written: written(this._step, this._filled.values, this._filled.out) };
  }

  protected override render(): JSX.Element {
    return (
      <Form
        step={this._step}
        initial={this._filled}
        suggest={this._suggest}
        trans={this._trans}
        changed={filled => {
          this._filled = filled;
        }}
      />
    );
  }
}

interface FormProps {
  step: Step;
  initial: Filled;
  suggest: Suggest;
  trans: TranslationBundle;
  changed: (filled: Filled) => void;
}

function Form({ step, initial, suggest, trans, changed }: FormProps): JSX.Element {
  const [filled, setFilled] = useState(initial);
  const [unfolded] = useState(Object.keys(initial.values).some(name => name.startsWith('--')));
  const put = (next: Filled): void => {
    setFilled(next);
    changed(next);
  };
  const set = (name: string, value: string | boolean): void => {
    const { [name]: _before, ...rest } = filled.values;
    put({ ...filled, values: value === '' ? rest : { ...rest, [name]: value } });
  };
  const field = (option: StepOption): JSX.Element => (
    <Field
      key={option.name}
      step={step}
      option={option}
      value={filled.values[option.name]}
      set={value => set(option.name, value)}
      suggest={suggest}
      trans={trans}
    />
  );
  const first = step.options.filter(option => placeOf(step, option) !== 'option');
  const rest = step.options.filter(option => placeOf(step, option) === 'option');
  return (
    <div className="qnb-form">
      <p>{step.summary}</p>
      {first.map(field)}
      <OutField out={filled.out} set={out => put({ ...filled, out })} trans={trans} />
      <details className="qnb-more" open={unfolded}>
        <summary>{trans.__('Options (%1)', rest.length)}</summary>
        {rest.map(field)}
      </details>
      <Closing run={filled.run} set={run => put({ ...filled, run })} written={written(step, filled.values, filled.out)} trans={trans} />
    </div>
  );
}

interface FieldProps {
  step: Step;
  option: StepOption;
  value: string | boolean | undefined;
  set: (value: string | boolean) => void;
  suggest: Suggest;
  trans: TranslationBundle;
}

function Field({ step, option, value, set, suggest, trans }: FieldProps): JSX.Element {
  const id = useId();
  const given = option.default;
  const help = `${id}-help`;
  const common = { id, 'aria-describedby': help };
  let input: JSX.Element;
  if (isSwitch(option)) {
    input = (
      <select className="qnb-input" {...common} value={value === undefined ? '' : value ? 'on' : 'off'} onChange={e => set(e.target.value === '' ? '' : e.target.value === 'on')}>
        <option value="">{given ? trans.__('default (%1)', given) : trans.__('default')}</option>
        <option value="on">{trans.__('on')}</option>
        <option value="off">{trans.__('off')}</option>
      </select>
    );
  } else if (option.choices.length && !isList(option)) {
    input = (
      <select className="qnb-input" {...common} value={String(value ?? '')} onChange={event => set(event.target.value)}>
        <option value="">{given ? trans.__('default (%1)', given) : trans.__('default')}</option>
        {option.choices.map(choice => (
          <option key={choice}>{choice}</option>
        ))}
      </select>
    );
  } else {
    input = (
      <TextWithNames
        {...common}
        value={String(value ?? '')}
        placeholder={given || option.choices.join(',')}
        names={() => suggest(step, option)}
        set={set}
      />
    );
  }
  return (
    <div className="qnb-field">
      <label htmlFor={id} className="qnb-option-name">
        {option.name}
      </label>
      {input}
      <small id={help}>{option.help}</small>
    </div>
  );
}

interface TextWithNamesProps {
  id: string;
  'aria-describedby'?: string;
  value: string;
  placeholder: string;
  /** Asked for once, when the field is gone to. */
  names: () => Promise<string[]>;
  set: (value: string) => void;
}

/** A text field that offers names, and takes others too. */
export function TextWithNames({ id, value, placeholder, names, set, ...more }: TextWithNamesProps): JSX.Element {
  const [known, setKnown] = useState<string[] | null>(null);
  return (
    <>
      <input
        {...more}
        id={id}
        className="qnb-input"
        value={value}
        placeholder={placeholder}
        list={`${id}-names`}
        autoComplete="off"
        spellCheck={false}
        onFocus={() => known ?? void names().then(setKnown)}
        onChange={event => set(event.target.value)}
      />
      <datalist id={`${id}-names`}>
        {(known ?? []).map(name => (
          <option key={name} value={name} />
        ))}
      </datalist>
    </>
  );
}

/** The variable that the result is bound to. */
export function OutField({ out, set, trans }: { out: string; set: (out: string) => void; trans: TranslationBundle }): JSX.Element {
  const id = useId();
  return (
    <div className="qnb-field">
      <label htmlFor={id}>{trans.__('Bind the result to')}</label>
      <input
        id={id}
        className="qnb-input"
        value={out}
        placeholder={trans.__('no variable')}
        autoComplete="off"
        spellCheck={false}
        onChange={event => set(event.target.value.trim())}
      />
    </div>
  );
}

interface ClosingProps {
  run: boolean;
  set: (run: boolean) => void;
  written: Written;
  trans: TranslationBundle;
}

/** Whether the cell is run, and its line with what keeps it from running. */
export function Closing({ run, set, written: { line, problems }, trans }: ClosingProps): JSX.Element {
  return (
    <>
      <label className="qnb-check">
        <input type="checkbox" checked={run} onChange={event => set(event.target.checked)} />
        {trans.__('Run the cell at once')}
      </label>
      <div className="qnb-preview" aria-live="polite">
        <code>{plain(line)}</code>
        {problems.map(problem => (
          <p key={problem} className="qnb-problem">
            {plain(problem)}
          </p>
        ))}
      </div>
    </>
  );
}
