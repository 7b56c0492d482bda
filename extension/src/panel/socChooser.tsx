/** A searchable list of SoCs, one of which is the target. */

import type { TranslationBundle } from '@jupyterlab/translation';
import { type KeyboardEvent, useEffect, useId, useRef, useState } from 'react';

import type { Soc, Socs } from './routes';

/** The SoCs that have all words of a search in their part, name or architecture. */
export function matching(socs: readonly Soc[], search: string): Soc[] {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  return socs.filter(soc => {
    const text = `${soc.part} ${soc.name} ${soc.hexagon_arch} ${soc.fp16 ? 'fp16' : ''}`.toLowerCase();
    return words.every(word => text.includes(word));
  });
}

/** A SoC in a list: its part, its name, and what it can do. */
export function SocWords({ soc }: { soc: Soc }): JSX.Element {
  return (
    <>
      <span className="qnb-soc-part">{soc.part}</span>
      <span className="qnb-soc-name">{soc.name}</span>
      <span className="qnb-soc-facts">
        {soc.hexagon_arch}
        {soc.fp16 ? ' fp16' : ''}
      </span>
    </>
  );
}

interface SocChooserProps {
  value: Socs;
  choose: (part: string) => void;
  trans: TranslationBundle;
}

export function SocChooser({ value, choose, trans }: SocChooserProps): JSX.Element {
  const [search, setSearch] = useState('');
  const [active, setActive] = useState<string | null>(null);
  const list = useRef<HTMLUListElement>(null);
  const id = useId();
  const found = matching(value.socs, search);
  const at = found.findIndex(soc => soc.part === active);

  // What is chosen, or walked over by keys, is in sight; only the list itself is scrolled.
  useEffect(() => {
    const host = list.current;
    const item = host?.querySelector<HTMLElement>('[data-active="true"]') ?? host?.querySelector<HTMLElement>('[aria-selected="true"]');
    if (host && item) {
      host.scrollTop = item.offsetTop - (host.clientHeight - item.offsetHeight) / 2;
    }
  }, [active, value.target]);

  const onKeyDown = (event: KeyboardEvent): void => {
    const last = found.length - 1;
    const next = { ArrowDown: Math.min(last, at + 1), ArrowUp: Math.max(0, at - 1), Home: 0, End: last }[event.key];
    if (next !== undefined && found[next]) {
      setActive(found[next].part);
      event.preventDefault();
    } else if (event.key === 'Enter' && (found[at] ?? found[0])) {
      choose((found[at] ?? found[0])!.part);
      event.preventDefault();
    } else if (event.key === 'Escape' && search) {
      setSearch('');
      event.stopPropagation();
    }
  };

  return (
    <div className="qnb-socs">
      <input
        type="search"
        className="qnb-input"
        role="combobox"
        aria-expanded="true"
        aria-controls={`${id}-list`}
        aria-activedescendant={at >= 0 ? `${id}-${at}` : undefined}
        aria-label={trans.__('Search SoCs by part, name or architecture')}
        placeholder={trans.__('Part, name, v75 or fp16')}
        value={search}
        onChange={event => setSearch(event.target.value)}
        onKeyDown={onKeyDown}
      />
      <ul id={`${id}-list`} ref={list} role="listbox" aria-label={trans.__('Target SoC')}>
        {found.map((soc, index) => (
          <li
            key={soc.part}
            id={`${id}-${index}`}
            role="option"
            aria-selected={soc.part === value.target}
            data-active={soc.part === active}
            onClick={() => choose(soc.part)}
          >
            <SocWords soc={soc} />
          </li>
        ))}
      </ul>
      {!found.length && <p className="qnb-quiet">{trans.__('No SoC has “%1” in its part, name or architecture.', search)}</p>}
    </div>
  );
}
