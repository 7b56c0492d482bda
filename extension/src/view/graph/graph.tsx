/** A graph with its legend, its list of ops and what is known of the chosen one. */
import { useDeferredValue, useEffect, useMemo, useRef, useState } from 'react';

import type { Graph } from '../document';
import { isSource, present, sourceLabel, sourceMeaning } from '../sources';
import { useWords } from '../translation';
import { clean } from '../words';
import { GraphCanvas, type CanvasHandle } from './canvas';
import { Details } from './details';
import { lay } from './laying';
import type { Layout } from './layout';
import { NodeList } from './nodes';
import { firstWay, isWord, paint, ways } from './paint';

interface Props {
  graph: Graph;
  embedded: boolean;
  /** Id of the chosen node. */
  selected: number | null;
  onSelect: (id: number | null) => void;
  /** Leads to the node's row; null where no table has one. */
  rowOf: (id: number) => (() => void) | null;
}

export function GraphView({ graph, embedded, selected, onSelect, rowOf }: Props): JSX.Element {
  const words = useWords();
  const [layout, setLayout] = useState<Layout | null>(null);
  const all = useMemo(() => ways(graph), [graph]);
  const [way, setWay] = useState<string | null>(null);
  const by = way !== null && all.includes(way) ? way : firstWay(graph, all);
  const [query, setQuery] = useState('');
  const asked = useDeferredValue(query);
  const canvas = useRef<CanvasHandle>(null);
  const positions = useMemo(() => new Map(graph.nodes.map((node, position) => [node.id, position])), [graph]);
  const chosen = selected === null ? -1 : (positions.get(selected) ?? -1);

  useEffect(() => {
    let current = true;
    setLayout(null);
    void lay(graph).then(made => {
      if (current) {
        setLayout(made);
      }
    });
    return () => {
      current = false;
    };
  }, [graph]);

  // A node that was chosen in a table is looked for once the graph stands.
  useEffect(() => {
    if (layout && chosen !== -1) {
      canvas.current?.show(chosen);
    }
  }, [layout]);

  const painted = useMemo(() => paint(graph, by, words.__('not known'), words.__('others')), [graph, by, words]);
  const sources = useMemo(
    () =>
      isWord(by)
        ? []
        : present(graph.nodes.flatMap(node => node.facts.flatMap(([name, said]) => (isSource(name) ? [said] : [])))),
    [graph, by]
  );
  const listed = useMemo(() => search(graph, asked), [graph, asked]);
  const found = useMemo(() => new Set(asked.trim() ? listed : []), [listed, asked]);
  const choose = (position: number): void => onSelect(graph.nodes[position]?.id ?? null);
  const jump = (position: number): void => {
    choose(position);
    canvas.current?.show(position);
  };

  return (
    <section className="qnb-Graph" aria-label={graph.title || words.__('Graph')}>
      <div className="qnb-Toolbar">
        <label>
          {words.__('Colour by')}{' '}
          <select value={by} onChange={event => setWay(event.target.value)}>
            {all.map(name => (
              <option key={name} value={name}>
                {name === 'type' ? words.__('op type') : name}
              </option>
            ))}
          </select>
        </label>
        <ul className="qnb-Legend" aria-label={words.__('Legend')}>
          {painted.legend.map(({ colour, label }) => (
            <li key={`${colour} ${label}`}>
              <span className="qnb-Legend-patch" style={{ background: colour }} /> {label}
            </li>
          ))}
          {sources.map(source => (
            <li key={source} className="qnb-mod-marked" title={sourceMeaning(source, words)}>
              {sourceLabel(clean(source))}
            </li>
          ))}
        </ul>
        <div role="group" className="qnb-Graph-zoom" aria-label={words.__('Zoom')}>
          <button type="button" onClick={() => canvas.current?.zoomBy(1 / 1.4)} title={words.__('Zoom out (-)')}>
            −
          </button>
          <button type="button" onClick={() => canvas.current?.zoomBy(1.4)} title={words.__('Zoom in (+)')}>
            +
          </button>
          <button type="button" onClick={() => canvas.current?.fit()} title={words.__('Show the whole graph (0)')}>
            {words.__('Fit')}
          </button>
        </div>
      </div>
      <div className="qnb-Graph-body">
        {layout ? (
          <GraphCanvas
            ref={canvas}
            graph={graph}
            layout={layout}
            paint={painted}
            selected={chosen}
            found={found}
            embedded={embedded}
            onSelect={choose}
          />
        ) : (
          <div className="qnb-Graph-stage qnb-Wait" role="status">
            {words.__('Placing %1 ops …', graph.nodes.length)}
          </div>
        )}
        <aside className="qnb-Graph-side" aria-label={words.__('Ops')}>
          <input
            type="search"
            value={query}
            placeholder={words.__('Search %1 ops', graph.nodes.length.toLocaleString('en-US'))}
            aria-label={words.__('Search ops by name or type')}
            onChange={event => setQuery(event.target.value)}
            onKeyDown={event => {
              if (event.key === 'Enter' && listed[0] !== undefined) {
                jump(listed[(listed.indexOf(chosen) + 1) % listed.length]!);
              }
            }}
          />
          <div className="qnb-Note" role="status">
            {asked.trim() ? words._n('%1 op found', '%1 ops found', listed.length, listed.length) : ''}
          </div>
          <NodeList graph={graph} listed={listed} selected={chosen} onSelect={jump} />
          {chosen !== -1 && (
            <Details
              graph={graph}
              position={chosen}
              positions={positions}
              onSelect={jump}
              toRow={rowOf(graph.nodes[chosen]!.id)}
              onClose={() => onSelect(null)}
            />
          )}
        </aside>
      </div>
    </section>
  );
}

/** Positions of the nodes that have each word of a search in their name, type, group or backend. */
export function search(graph: Graph, query: string): number[] {
  const asked = query.toLowerCase().split(/\s+/).filter(Boolean);
  return graph.nodes.flatMap((node, position) => {
    const said = `${node.name} ${node.type} ${node.group ?? ''} ${node.backend ?? ''}`.toLowerCase();
    return asked.every(word => said.includes(word)) ? [position] : [];
  });
}
