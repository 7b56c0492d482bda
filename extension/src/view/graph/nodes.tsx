/** All ops as a list: for the keyboard, for screen readers, and for what a search found. */
import { useVirtualizer } from '@tanstack/react-virtual';
import { useEffect, useId, useRef } from 'react';

import type { Graph } from '../document';
import { useWords } from '../translation';
import { elide } from '../words';
import { nodeLabel } from './scene';

interface Props {
  graph: Graph;
  listed: number[];
  selected: number;
  onSelect: (position: number) => void;
}

const ROW = 24;

export function NodeList({ graph, listed, selected, onSelect }: Props): JSX.Element {
  const words = useWords();
  const box = useRef<HTMLDivElement>(null);
  const id = useId();
  const rows = useVirtualizer({ count: listed.length, getScrollElement: () => box.current, estimateSize: () => ROW });
  const at = listed.indexOf(selected);
  useEffect(() => {
    if (at !== -1) {
      rows.scrollToIndex(at, { align: 'auto' });
    }
  }, [at]);
  const move = (to: number): void => {
    const next = listed[Math.max(0, Math.min(listed.length - 1, to))];
    if (next !== undefined) {
      onSelect(next);
    }
  };
  const keys: Record<string, number> = {
    ArrowDown: at + 1,
    ArrowUp: at === -1 ? 0 : at - 1,
    PageDown: at + 10,
    PageUp: at - 10,
    Home: 0,
    End: listed.length - 1
  };
  const items = rows.getVirtualItems();
  return (
    <div
      ref={box}
      className="qnb-Nodes"
      role="listbox"
      tabIndex={0}
      aria-label={words.__('Ops of the graph')}
      aria-activedescendant={items.some(item => item.index === at) ? `${id}-${at}` : undefined}
      data-lm-suppress-shortcuts="true"
      onKeyDown={event => {
        const to = keys[event.key];
        if (to !== undefined) {
          event.preventDefault();
          move(to);
        }
      }}
    >
      <div role="presentation" style={{ height: rows.getTotalSize(), position: 'relative' }}>
        {items.map(item => {
          const position = listed[item.index]!;
          const node = graph.nodes[position]!;
          return (
            <div
              key={item.key}
              id={`${id}-${item.index}`}
              role="option"
              aria-selected={position === selected}
              aria-setsize={listed.length}
              aria-posinset={item.index + 1}
              className="qnb-Nodes-row"
              style={{ height: ROW, transform: `translateY(${item.start}px)` }}
              title={nodeLabel(node)}
              onClick={() => onSelect(position)}
            >
              <span>{elide(nodeLabel(node), 40)}</span> <span className="qnb-Nodes-type">{elide(node.type, 20)}</span>
            </div>
          );
        })}
      </div>
    </div>
  );
}
