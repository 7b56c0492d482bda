/** What runs, how far it is, and a button that stops it. */

import type { TranslationBundle } from '@jupyterlab/translation';
import { useEffect, useState } from 'react';

import { elapsed, plain, share } from './format';
import type { Job } from './routes';

interface JobsProps {
  jobs: readonly Job[];
  stopping: ReadonlySet<string>;
  cancel: (id: string) => void;
  trans: TranslationBundle;
}

export function Jobs({ jobs, stopping, cancel, trans }: JobsProps): JSX.Element {
  const [now, setNow] = useState(Date.now());
  const any = jobs.length > 0;
  useEffect(() => {
    if (!any) {
      return undefined;
    }
    const clock = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(clock);
  }, [any]);

  if (!any) {
    return <p className="qnb-quiet">{trans.__('Nothing runs. What a cell with %qnn does for longer than a moment is shown here.')}</p>;
  }
  return (
    <ul className="qnb-jobs">
      {jobs.map(job => {
        const done = share(job.done, job.total);
        const stops = job.cancelled || stopping.has(job.id);
        const seconds = (Math.max(now, Date.now()) - Date.parse(job.started)) / 1000;
        return (
          <li key={job.id} data-job={job.id}>
            <div className="qnb-file">
              <bdi className="qnb-job-title">{plain(job.title)}</bdi>
              <button
                className="qnb-button"
                disabled={stops}
                aria-label={stops ? trans.__('%1 is being stopped', job.title) : trans.__('Cancel %1', job.title)}
                onClick={() => cancel(job.id)}
              >
                {stops ? trans.__('stopping…') : trans.__('Cancel')}
              </button>
            </div>
            {job.line && <Line text={plain(job.line)} />}
            <progress aria-label={trans.__('Progress of %1', job.title)} max={1} value={done ?? undefined} />
            <div className="qnb-facts">
              {done !== null && <span>{Math.floor(done * 100)} %</span>}
              <span>{elapsed(seconds)}</span>
              {job.text && <bdi>{plain(job.text)}</bdi>}
            </div>
          </li>
        );
      })}
    </ul>
  );
}

/** A line of code that breaks between its words, not behind the dashes of an option. */
function Line({ text }: { text: string }): JSX.Element {
  return (
    <code className="qnb-line">
      {text.split(/(\s+)/).map((word, index) => (
        <span key={index}>{word}</span>
      ))}
    </code>
  );
}
