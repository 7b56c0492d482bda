/** The panel as it is seen: four sections, all of whose content is what the routes answered, shown as text. */

import type { TranslationBundle } from '@jupyterlab/translation';
import { caretDownIcon, caretRightIcon, copyIcon, refreshIcon } from '@jupyterlab/ui-components';
import { type ReactNode, useId, useState } from 'react';

import { DoctorList } from './doctorList';
import { Jobs } from './jobList';
import { type Branch, brief, isSaved, lineage, openingLine } from './lineage';
import { bytes, plain } from './format';
import type { Entry, RouteError, Workspace } from './routes';
import { SocChooser } from './socChooser';
import type { Loaded, PanelState } from './state';

/** What a click in the panel does outside of it. */
export interface Actions {
  open(entry: Entry): void;
  copy(entry: Entry): void;
}

interface PanelProps {
  state: PanelState;
  actions: Actions;
  trans: TranslationBundle;
}

export function Panel({ state, actions, trans }: PanelProps): JSX.Element {
  const { socs, jobs, workspace, doctor } = state;
  const target = socs.value?.target;
  return (
    <div className="qnb-panel">
      {state.refused && <Failure error={state.refused} />}
      <Section title={trans.__('Target SoC')} note={target} loaded={socs} again={() => state.refresh('socs')} trans={trans}>
        {value => <SocChooser value={value} choose={part => void state.choose(part)} trans={trans} />}
      </Section>
      <Section title={trans.__('Running')} note={countOf(jobs.value)} loaded={jobs} again={() => state.refresh('jobs')} trans={trans}>
        {value => <Jobs jobs={value} stopping={state.stopping} cancel={id => void state.cancel(id)} trans={trans} />}
      </Section>
      <Section
        title={trans.__('Models and results')}
        note={countOf(workspace.value?.entries)}
        loaded={workspace}
        again={() => state.refresh('workspace')}
        trans={trans}
      >
        {value => <Files workspace={value} actions={actions} trans={trans} />}
      </Section>
      <Section title={trans.__('This machine')} loaded={doctor} again={() => state.refresh('doctor')} trans={trans}>
        {value => <DoctorList doctor={value} trans={trans} />}
      </Section>
    </div>
  );
}

function countOf(items: readonly unknown[] | null | undefined): string | undefined {
  return items?.length ? String(items.length) : undefined;
}

interface SectionProps<T> {
  title: string;
  note?: string;
  loaded: Loaded<T>;
  again: () => Promise<void>;
  trans: TranslationBundle;
  children: (value: T) => ReactNode;
}

function Section<T>({ title, note, loaded, again, trans, children }: SectionProps<T>): JSX.Element {
  const [open, setOpen] = useState(true);
  const body = useId();
  const Caret = open ? caretDownIcon : caretRightIcon;
  const refresh = trans.__('Refresh: %1', title);
  return (
    <section className="qnb-section" aria-label={title} aria-busy={loaded.loading}>
      <header>
        <button className="qnb-fold" aria-expanded={open} aria-controls={body} onClick={() => setOpen(!open)}>
          <Caret.react tag="span" width="16px" />
          <span className="qnb-section-title">{title}</span>
          {note && <span className="qnb-note">{note}</span>}
        </button>
        <button className="qnb-icon-button" title={refresh} aria-label={refresh} onClick={() => void again()}>
          <refreshIcon.react tag="span" width="16px" />
        </button>
      </header>
      <div id={body} hidden={!open} className="qnb-section-body">
        {loaded.error && <Failure error={loaded.error} />}
        {loaded.value !== null && children(loaded.value)}
        {loaded.value === null && !loaded.error && (
          <p className="qnb-quiet">{loaded.loading ? trans.__('Loading…') : trans.__('Not asked for yet.')}</p>
        )}
      </div>
    </section>
  );
}

function Failure({ error }: { error: RouteError }): JSX.Element {
  return (
    <div className="qnb-failure" role="alert">
      <strong>{error.message}</strong>
      {error.hint && <p>{error.hint}</p>}
    </div>
  );
}

interface FilesProps {
  workspace: Workspace;
  actions: Actions;
  trans: TranslationBundle;
}

function Files({ workspace, actions, trans }: FilesProps): JSX.Element {
  if (!workspace.entries.length) {
    return (
      <p className="qnb-quiet">
        {trans.__('No model and no saved result in this folder yet. Put an .onnx file here, or save one: %qnn save RESULT FOLDER')}
      </p>
    );
  }
  return (
    <>
      <FileList branches={lineage(workspace.entries)} actions={actions} trans={trans} />
      {workspace.cut && <p className="qnb-quiet">{trans.__('There are more: the server stopped looking.')}</p>}
    </>
  );
}

interface FileListProps {
  branches: readonly Branch[];
  actions: Actions;
  trans: TranslationBundle;
}

function FileList({ branches, actions, trans }: FileListProps): JSX.Element {
  return (
    <ul className="qnb-files">
      {branches.map(({ entry, children, absent }) => (
        <li key={entry.path} data-path={entry.path}>
          <div className="qnb-file">
            <button
              className="qnb-link"
              title={trans.__('Open %1', plain(entry.path))}
              onClick={() => actions.open(entry)}
            >
              <bdi>{plain(isSaved(entry) ? entry.title || entry.path : entry.path)}</bdi>
            </button>
            {openingLine(entry, '') !== null && (
              <button
                className="qnb-icon-button"
                title={trans.__('Copy the line that opens it')}
                aria-label={trans.__('Copy the line that opens %1', plain(entry.path))}
                onClick={() => actions.copy(entry)}
              >
                <copyIcon.react tag="span" width="14px" />
              </button>
            )}
          </div>
          {isSaved(entry) && (
            <div className="qnb-quiet">
              <bdi>{plain(entry.path)}</bdi>
            </div>
          )}
          <div className="qnb-facts">
            {facts(entry, trans).map(([name, value]) => (
              <span key={name} title={name === 'digest' ? (entry.digest ?? '') : undefined}>
                <b>{name}</b> <bdi>{plain(value)}</bdi>
              </span>
            ))}
          </div>
          {absent.length > 0 && (
            <div className="qnb-quiet">{trans.__('made of %1, which is not in this folder', absent.map(brief).join(', '))}</div>
          )}
          {children.length > 0 && <FileList branches={children} actions={actions} trans={trans} />}
        </li>
      ))}
    </ul>
  );
}

function facts(entry: Entry, trans: TranslationBundle): [string, string][] {
  const all: [string, string | null][] = [
    [trans.__('kind'), entry.kind],
    ['SoC', entry.soc],
    [trans.__('calibration'), entry.calibration],
    [trans.__('size'), entry.bytes === null ? null : bytes(entry.bytes)],
    [trans.__('made'), entry.made && new Date(entry.made).toLocaleString(undefined, { dateStyle: 'medium', timeStyle: 'short' })],
    ['digest', entry.digest && brief(entry.digest)]
  ];
  return all.filter((fact): fact is [string, string] => Boolean(fact[1]));
}
