/** Tabs as the WAI-ARIA practices have them: one stop of the Tab key, arrows go round. */
import { useId, useRef, type ReactNode } from 'react';

export interface Tab {
  key: string;
  title: string;
  panel: ReactNode;
}

interface Props {
  label: string;
  tabs: Tab[];
  active: string;
  onActivate: (key: string) => void;
}

export function Tabs({ label, tabs, active, onActivate }: Props): JSX.Element | null {
  const id = useId();
  const list = useRef<HTMLDivElement>(null);
  const at = Math.max(
    0,
    tabs.findIndex(tab => tab.key === active)
  );
  const shown = tabs[at];
  if (!shown) {
    return null;
  }
  if (tabs.length === 1) {
    return <div className="qnb-Panel">{shown.panel}</div>;
  }
  const go = (to: number): void => {
    const next = (to + tabs.length) % tabs.length;
    onActivate(tabs[next]!.key);
    (list.current?.children[next] as HTMLElement | undefined)?.focus();
  };
  const keys: Record<string, number> = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: tabs.length - 1 };
  return (
    <>
      <div className="qnb-Tabs" role="tablist" aria-label={label} ref={list} data-lm-suppress-shortcuts="true">
        {tabs.map((tab, k) => (
          <button
            key={tab.key}
            type="button"
            role="tab"
            id={`${id}-${k}`}
            aria-selected={k === at}
            aria-controls={k === at ? `${id}-panel` : undefined}
            tabIndex={k === at ? 0 : -1}
            onClick={() => onActivate(tab.key)}
            onKeyDown={event => {
              const to = keys[event.key];
              if (to !== undefined) {
                event.preventDefault();
                go(to);
              }
            }}
          >
            {tab.title}
          </button>
        ))}
      </div>
      <div className="qnb-Panel" role="tabpanel" id={`${id}-panel`} aria-labelledby={`${id}-${at}`} key={shown.key}>
        {shown.panel}
      </div>
    </>
  );
}
