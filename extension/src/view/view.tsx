/** A view document as a page: facts, notes, tables with their charts, graph. One view for outputs and for files. */
import { nullTranslator, type TranslationBundle } from '@jupyterlab/translation';
import { useMemo, useState } from 'react';

import { ChartView } from './chart';
import type { ViewDocument } from './document';
import { GraphView } from './graph/graph';
import { link } from './links';
import type { Picture } from './pictures';
import { DataTable } from './table';
import { Tabs, type Tab } from './tabs';
import { DOMAIN, useWords, Words } from './translation';
import { clean, elide, plain } from './words';

interface Props {
  document: ViewDocument;
  trans?: TranslationBundle;
  /** In a notebook's output: as high as it needs, and the wheel is the page's. */
  embedded: boolean;
  pictures?: Picture[];
}

export function ReportView(props: Props): JSX.Element {
  return (
    <Words.Provider value={props.trans ?? nullTranslator.load(DOMAIN)}>
      <Report {...props} />
    </Words.Provider>
  );
}

function Report({ document, embedded, pictures = [] }: Props): JSX.Element {
  const words = useWords();
  const { tables, graph, charts } = document;
  const [node, setNode] = useState<number | null>(null);
  const [rows, setRows] = useState<Record<number, number | null>>({});
  const [active, setActive] = useState('table-0');
  const links = useMemo(() => link(graph, tables), [graph, tables]);

  const selectRow = (table: number, row: number | null): void => {
    setRows({ ...rows, [table]: row });
    const id = row === null ? null : (links.nodes[table]?.[row] ?? null);
    if (id !== null) {
      setNode(id);
    }
  };
  const selectNode = (id: number | null): void => {
    setNode(id);
    const place = id === null ? undefined : links.rows.get(id);
    if (place) {
      setRows({ ...rows, [place.table]: place.row });
    }
  };
  const toNode = (table: number) => {
    if (!links.nodes[table]?.some(id => id !== null)) {
      return null;
    }
    return (row: number): (() => void) | null => {
      const id = links.nodes[table]?.[row] ?? null;
      return id === null
        ? null
        : () => {
            setNode(id);
            setActive('graph');
          };
    };
  };
  const rowOf = (id: number): (() => void) | null => {
    const place = links.rows.get(id);
    return place
      ? () => {
          selectNode(id);
          setActive(`table-${place.table}`);
        }
      : null;
  };

  const tabs: Tab[] = tables.map((table, k) => ({
    key: `table-${k}`,
    title:
      k === 0 && table.title === document.title
        ? words.__('Summary')
        : elide(table.title, 60) || words.__('Table %1', k + 1),
    panel: (
      <>
        {charts.map((chart, c) => chart.table === k && <ChartView key={c} chart={chart} table={table} />)}
        <DataTable table={table} selected={rows[k] ?? null} onSelect={row => selectRow(k, row)} toNode={toNode(k)} />
      </>
    )
  }));
  if (graph) {
    tabs.push({
      key: 'graph',
      title: words.__('Graph'),
      panel: <GraphView graph={graph} embedded={embedded} selected={node} onSelect={selectNode} rowOf={rowOf} />
    });
  }
  const figures = pictures.map((picture, k) => (
    <img key={k} className="qnb-Picture" src={picture.address} alt={picture.words || words.__('Chart %1', k + 1)} />
  ));
  if (figures.length > 0 && charts.length > 0) {
    tabs.push({ key: 'figures', title: words.__('Figures'), panel: figures });
  }
  return (
    <article className={`qnb-View${embedded ? ' qnb-mod-embedded' : ''}`} aria-label={clean(document.title)}>
      <header>
        <h2>{elide(document.title, 160)}</h2>
        {document.kind && <span className="qnb-Kind">{clean(document.kind)}</span>}
      </header>
      {document.facts.length > 0 && (
        <dl className="qnb-Facts">
          {document.facts.map(([name, value], k) => (
            <div key={k}>
              <dt>{clean(name)}</dt>
              <dd title={plain(value)}>{elide(plain(value), 120)}</dd>
            </div>
          ))}
        </dl>
      )}
      {document.notes.length > 0 && (
        <ul className="qnb-Notes" aria-label={words.__('Notes')}>
          {document.notes.map((note, k) => (
            <li key={k}>{clean(note)}</li>
          ))}
        </ul>
      )}
      <Tabs label={words.__('Parts of %1', clean(document.title))} tabs={tabs} active={active} onActivate={setActive} />
      {charts.length === 0 && figures}
      {document.recipe && Object.keys(document.recipe).length > 0 && (
        <details className="qnb-Recipe">
          <summary>{words.__('Recipe')}</summary>
          <pre tabIndex={0}>{JSON.stringify(document.recipe, null, 2)}</pre>
        </details>
      )}
    </article>
  );
}
