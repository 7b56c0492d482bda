/** What is known of one op: its values and facts, what it takes and gives, and its neighbours as links. */
import type { Graph, GraphEdge } from '../document';
import { isSource, sourceLabel } from '../sources';
import { useWords } from '../translation';
import { clean, elide, number } from '../words';
import { nodeLabel } from './scene';

interface Props {
  graph: Graph;
  position: number;
  positions: ReadonlyMap<number, number>;
  onSelect: (position: number) => void;
  toRow: (() => void) | null;
  onClose: () => void;
}

const MOST_NEIGHBOURS = 50;

export function Details({ graph, position, positions, onSelect, toRow, onClose }: Props): JSX.Element {
  const words = useWords();
  const node = graph.nodes[position]!;
  const above = graph.edges.filter(edge => edge.to === node.id);
  const below = graph.edges.filter(edge => edge.from === node.id);
  const known: [string, string][] = [
    [words.__('type'), clean(node.type)],
    ...(node.backend ? [[words.__('backend'), clean(node.backend)] as [string, string]] : []),
    ...(node.group ? [[words.__('group'), clean(node.group)] as [string, string]] : []),
    ...Object.entries(node.values).map(([name, value]): [string, string] => [
      clean(name),
      value === null ? words.__('not known') : number(value, Number.isInteger(value))
    ]),
    ...node.facts
      .filter(([, said]) => said !== '')
      .map(([name, said]): [string, string] => [clean(name), isSource(name) ? sourceLabel(clean(said)) : clean(said)])
  ];
  const neighbours = (title: string, edges: GraphEdge[], end: 'from' | 'to'): JSX.Element => (
    <>
      <h4>{title}</h4>
      {edges.length === 0 && <p className="qnb-Note">{words.__('none in this graph')}</p>}
      <ul>
        {edges.slice(0, MOST_NEIGHBOURS).map((edge, k) => {
          const at = positions.get(edge[end])!;
          return (
            <li key={k}>
              <button type="button" className="qnb-Link" title={nodeLabel(graph.nodes[at]!)} onClick={() => onSelect(at)}>
                {elide(nodeLabel(graph.nodes[at]!), 40)}
              </button>{' '}
              <span className="qnb-Note" title={clean(edge.tensor)}>
                {elide(edge.tensor, 40)} {edge.shape ? clean(edge.shape) : ''}
              </span>
            </li>
          );
        })}
      </ul>
      {edges.length > MOST_NEIGHBOURS && (
        <p className="qnb-Note">{words.__('and %1 more', edges.length - MOST_NEIGHBOURS)}</p>
      )}
    </>
  );
  return (
    <div className="qnb-Details" role="region" aria-label={words.__('Chosen op')} aria-live="polite" tabIndex={0}>
      <div className="qnb-Details-head">
        <h3 title={nodeLabel(node)}>{elide(nodeLabel(node), 60)}</h3>
        <button type="button" onClick={onClose} title={words.__('Close')} aria-label={words.__('Close')}>
          ×
        </button>
      </div>
      <dl>
        {known.map(([name, said], k) => (
          <div key={k}>
            <dt>{name}</dt>
            <dd>{said}</dd>
          </div>
        ))}
      </dl>
      {toRow && (
        <button type="button" onClick={toRow}>
          {words.__('Show in table')}
        </button>
      )}
      {neighbours(words.__('From'), above, 'from')}
      {neighbours(words.__('To'), below, 'to')}
    </div>
  );
}
