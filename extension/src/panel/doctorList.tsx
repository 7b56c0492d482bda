/** The rows of `doctor`: what is there first, then why something is not, and what to do about it. */

import type { TranslationBundle } from '@jupyterlab/translation';

import type { Doctor } from './routes';

/** A row of doctor's table, by the names of its columns. */
export interface Finding {
  component: string;
  name: string;
  state: string;
  version: string;
  detail: string;
  remedy: string;
}

const COLUMNS = ['component', 'name', 'state', 'version', 'detail', 'remedy'] as const;
const FIRST = ['runtime', 'backend'];
const MARKS: Record<string, string> = { ok: '✓', limited: '◐', missing: '–', failed: '✗' };

/** Read the rows; a column that is not there is empty. */
export function findings(doctor: Doctor): Finding[] {
  return doctor.tables.flatMap(table =>
    table.rows.map(row => {
      const cell = (name: string): string => String(row[table.columns.indexOf(name)] ?? '');
      return Object.fromEntries(COLUMNS.map(name => [name, cell(name)])) as unknown as Finding;
    })
  );
}

export function DoctorList({ doctor, trans }: { doctor: Doctor; trans: TranslationBundle }): JSX.Element {
  const all = findings(doctor);
  const first = all.filter(finding => FIRST.includes(finding.component));
  const rest = all.filter(finding => !FIRST.includes(finding.component));
  return (
    <>
      <p className="qnb-quiet">{doctor.title}</p>
      <Findings items={first} />
      <details className="qnb-more">
        <summary>{trans.__('Host, packages and tools (%1)', rest.length)}</summary>
        <Findings items={rest} />
      </details>
    </>
  );
}

function Findings({ items }: { items: readonly Finding[] }): JSX.Element {
  return (
    <ul className="qnb-doctor">
      {items.map((finding, index) => (
        <li key={index} data-state={finding.state}>
          <span className="qnb-mark" aria-hidden="true">
            {MARKS[finding.state] ?? '·'}
          </span>
          <div>
            <b>{finding.component}</b> {finding.name} <span className="qnb-quiet">{finding.version}</span>{' '}
            <span className="qnb-state">{finding.state}</span>
            {finding.detail && <div className="qnb-quiet">{finding.detail}</div>}
            {finding.remedy && <div className="qnb-remedy">{finding.remedy}</div>}
          </div>
        </li>
      ))}
    </ul>
  );
}
