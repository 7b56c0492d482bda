/** Dialogs' bodies that choose one of a few, or several SoCs. */

import type { TranslationBundle } from '@jupyterlab/translation';
import { ReactWidget } from '@jupyterlab/ui-components';
import { useId, useState } from 'react';

import type { Soc } from '../panel/routes';
import { matching, SocWords } from '../panel/socChooser';
import type { Written } from '../words/steps';
import { Closing, OutField, TextWithNames } from './form';

export interface Choice {
  id: string;
  title: string;
  about: string;
}

/** One of a few, with what is said of each. */
export class Chooser extends ReactWidget {
  constructor(
    private readonly _choices: readonly Choice[],
    private _chosen: string,
    private readonly _label: string
  ) {
    super();
  }

  getValue(): string {
    return this._chosen;
  }

  protected override render(): JSX.Element {
    return <Radios choices={this._choices} initial={this._chosen} label={this._label} changed={id => (this._chosen = id)} />;
  }
}

interface RadiosProps {
  choices: readonly Choice[];
  initial: string;
  label: string;
  changed: (id: string) => void;
}

function Radios({ choices, initial, label, changed }: RadiosProps): JSX.Element {
  const [chosen, setChosen] = useState(initial);
  const name = useId();
  return (
    <div className="qnb-choices" role="radiogroup" aria-label={label}>
      {choices.map(choice => (
        <label key={choice.id} className="qnb-choice" data-chosen={choice.id === chosen}>
          <input
            type="radio"
            name={name}
            value={choice.id}
            checked={choice.id === chosen}
            onChange={() => {
              setChosen(choice.id);
              changed(choice.id);
            }}
          />
          <span>
            <bdi className="qnb-choice-title">{choice.title}</bdi>
            <bdi className="qnb-quiet">{choice.about}</bdi>
          </span>
        </label>
      ))}
    </div>
  );
}

/** What to compile, and for which SoCs. */
export interface Compilation {
  build: string;
  socs: string[];
  out: string;
  run: boolean;
}

export class CompileForm extends ReactWidget {
  constructor(
    private readonly _socs: readonly Soc[],
    private _value: Compilation,
    private readonly _names: () => Promise<string[]>,
    private readonly _lineOf: (value: Compilation) => Written,
    private readonly _trans: TranslationBundle
  ) {
    super();
  }

  getValue(): Compilation {
    return this._value;
  }

  protected override render(): JSX.Element {
    return (
      <Compile
        socs={this._socs}
        initial={this._value}
        names={this._names}
        lineOf={this._lineOf}
        trans={this._trans}
        changed={value => (this._value = value)}
      />
    );
  }
}

interface CompileProps {
  socs: readonly Soc[];
  initial: Compilation;
  names: () => Promise<string[]>;
  lineOf: (value: Compilation) => Written;
  trans: TranslationBundle;
  changed: (value: Compilation) => void;
}

function Compile({ socs, initial, names, lineOf, trans, changed }: CompileProps): JSX.Element {
  const [value, setValue] = useState(initial);
  const [search, setSearch] = useState('');
  const id = useId();
  const put = (next: Compilation): void => {
    setValue(next);
    changed(next);
  };
  // Those chosen at first stand first: what is ticked is seen without scrolling.
  const ordered = [...socs].sort((a, b) => Number(initial.socs.includes(b.part)) - Number(initial.socs.includes(a.part)));
  const toggle = (part: string): void =>
    put({ ...value, socs: value.socs.includes(part) ? value.socs.filter(each => each !== part) : [...value.socs, part] });
  return (
    <div className="qnb-form">
      <div className="qnb-field">
        <label htmlFor={`${id}-build`}>{trans.__('Variable or file')}</label>
        <TextWithNames
          id={`${id}-build`}
          value={value.build}
          placeholder="quantized"
          names={names}
          set={build => put({ ...value, build })}
        />
      </div>
      <fieldset className="qnb-socs">
        <legend>{trans.__('SoCs (%1 chosen)', value.socs.length)}</legend>
        <input
          type="search"
          className="qnb-input"
          aria-label={trans.__('Search SoCs by part, name or architecture')}
          placeholder={trans.__('Part, name, v75 or fp16')}
          value={search}
          onChange={event => setSearch(event.target.value)}
        />
        <div className="qnb-soc-checks">
          {matching(ordered, search).map(soc => (
            <label key={soc.part} className="qnb-check">
              <input type="checkbox" checked={value.socs.includes(soc.part)} onChange={() => toggle(soc.part)} />
              <SocWords soc={soc} />
            </label>
          ))}
        </div>
      </fieldset>
      <OutField out={value.out} set={out => put({ ...value, out })} trans={trans} />
      <Closing run={value.run} set={run => put({ ...value, run })} written={lineOf(value)} trans={trans} />
    </div>
  );
}
