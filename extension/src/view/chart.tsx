/** Bars and points with their intervals; where a figure comes from is told by shape or pattern, not by colour alone. */
import { scaleLinear } from 'd3-scale';
import { useId, useLayoutEffect, useMemo, useRef, useState } from 'react';

import { marks, MOST_LINES, type Mark } from './marks';
import type { Chart, Table } from './document';
import { Hatches, isHatched, patternId, SourceMark } from './shapes';
import { MARK, sourceLabel, sourceMeaning } from './sources';
import { useWords } from './translation';
import { clean, compact, elide, number } from './words';

const LINE = 22;
const TOP = 4;
const AXIS = 34;
const LETTER = 6.6;

export function ChartView({ chart, table }: { chart: Chart; table: Table }): JSX.Element {
  const words = useWords();
  const figure = useRef<HTMLElement>(null);
  const [width, setWidth] = useState(640);
  useLayoutEffect(() => {
    const element = figure.current;
    if (!element || typeof ResizeObserver === 'undefined') {
      return;
    }
    const measure = (): void => setWidth(Math.max(280, Math.min(980, element.clientWidth)));
    measure();
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  const drawn = useMemo(() => marks(chart, table), [chart, table]);
  const note =
    drawn.total > drawn.marks.length
      ? drawn.largest
        ? words.__('The %1 largest of %2; all are in the table.', drawn.marks.length, drawn.total)
        : words.__('%1 of %2 rows have a figure.', drawn.marks.length, drawn.total)
      : '';
  return (
    <figure className="qnb-Chart" ref={figure}>
      <figcaption>{clean(chart.title)}</figcaption>
      {drawn.groups.length > 1 && (
        <ul className="qnb-Legend" aria-label={words.__('Legend')}>
          {drawn.groups.map((group, k) => (
            <li key={group}>
              <span className={`qnb-Legend-patch qnb-fill-${k % 8}`} /> {clean(group)}
            </li>
          ))}
        </ul>
      )}
      {drawn.marks.length === 0 ? (
        <p className="qnb-Note">{words.__('There are no figures to draw.')}</p>
      ) : drawn.scattered ? (
        <Scatter chart={chart} marks={drawn.marks} numeric={drawn.numericLabels} width={width} />
      ) : (
        <Lines chart={chart} marks={drawn.marks} width={width} />
      )}
      {note && <p className="qnb-Note">{note}</p>}
      <ul className="qnb-Legend" aria-label={words.__('Sources')}>
        {drawn.sources.map(source => (
          <li key={source} title={sourceMeaning(source, words)}>
            <SourceKey source={source} points={chart.type === 'points'} /> {sourceLabel(source)}
          </li>
        ))}
      </ul>
    </figure>
  );
}

function SourceKey({ source, points }: { source: string; points: boolean }): JSX.Element {
  const id = useId().replaceAll(':', '');
  return (
    <svg width={16} height={12} aria-hidden="true" className="qnb-fill-0">
      {points ? (
        <SourceMark source={source} x={8} y={6} />
      ) : (
        <>
          <Hatches id={id} sources={[source]} />
          <rect x={0} y={1} width={16} height={10} />
          <rect x={0} y={1} width={16} height={10} fill={`url(#${patternId(id, source)})`} className="qnb-Chart-hatch" />
        </>
      )}
    </svg>
  );
}

/** One line a row: names at the left, bars or points at their values, figures at the right. */
function Lines({ chart, marks, width }: { chart: Chart; marks: Mark[]; width: number }): JSX.Element {
  const id = useId().replaceAll(':', '');
  const longest = marks.reduce((most, mark) => Math.max(most, clean(mark.label).length), 0);
  const room = Math.min(longest, Math.floor((0.36 * width) / LETTER));
  const left = room * LETTER + 10;
  const right = 76;
  const extent = range(marks, chart.type === 'bars');
  const x = scaleLinear()
    .domain(extent)
    .nice(5)
    .range([left, width - right]);
  const height = TOP + marks.length * LINE + AXIS;
  const zero = x(Math.max(0, x.domain()[0]!));
  return (
    <svg width={width} height={height} role="img" aria-label={described(chart, marks)}>
      <Hatches id={id} sources={[...new Set(marks.map(mark => mark.source))]} />
      <Axis ticks={x.ticks(5)} at={x} from={TOP} to={height - AXIS} title={chart.value} middle={(left + width - right) / 2} />
      {marks.map((mark, k) => {
        const y = TOP + k * LINE + LINE / 2;
        const [start, end] = [Math.min(zero, x(mark.value)), Math.max(zero, x(mark.value))];
        return (
          <g key={k} className={`qnb-fill-${mark.group % 8}`}>
            <title>{tooltip(mark, chart)}</title>
            <text x={left - 6} y={y} textAnchor="end" dominantBaseline="central">
              {elide(mark.label, room)}
            </text>
            {chart.type === 'bars' && (
              <>
                <rect x={start} y={y - 7} width={mark.value === 0 ? 0 : Math.max(1, end - start)} height={14} />
                {isHatched(mark.source) && mark.value !== 0 && (
                  <rect
                    x={start}
                    y={y - 7}
                    width={Math.max(1, end - start)}
                    height={14}
                    fill={`url(#${patternId(id, mark.source)})`}
                    className="qnb-Chart-hatch"
                  />
                )}
              </>
            )}
            <Whisker low={mark.low} high={mark.high} at={x} y={y} />
            {chart.type === 'points' && <SourceMark source={mark.source} x={x(mark.value)} y={y} />}
            <text x={Math.max(end, x(mark.high ?? mark.value)) + 8} y={y} dominantBaseline="central">
              {number(mark.value, Number.isInteger(mark.value))}
              {isHatched(mark.source) ? MARK : ''}
            </text>
          </g>
        );
      })}
    </svg>
  );
}

/** Many points: along the rows' order, or against a second figure. */
function Scatter(props: { chart: Chart; marks: Mark[]; numeric: boolean; width: number }): JSX.Element {
  const { chart, marks, numeric, width } = props;
  const [left, right, height] = [64, 16, 300];
  const across = marks.map(mark => (numeric ? Number(mark.label) : mark.row));
  const x = scaleLinear()
    .domain([Math.min(...across), Math.max(...across)])
    .range([left + 8, width - right]);
  if (numeric) {
    x.nice(6);
  }
  const y = scaleLinear()
    .domain(range(marks, false))
    .nice(5)
    .range([height - AXIS, TOP + 8]);
  return (
    <svg width={width} height={height} role="img" aria-label={described(chart, marks)}>
      {y.ticks(5).map(tick => (
        <g key={tick}>
          <line className="qnb-Chart-grid" x1={left} x2={width - right} y1={y(tick)} y2={y(tick)} />
          <text x={left - 6} y={y(tick)} textAnchor="end" dominantBaseline="central">
            {figureWords(tick)}
          </text>
        </g>
      ))}
      <text transform={`translate(12 ${(height - AXIS) / 2}) rotate(-90)`} textAnchor="middle">
        {clean(chart.value)}
      </text>
      <Axis
        ticks={numeric ? x.ticks(6) : []}
        at={x}
        from={TOP}
        to={height - AXIS}
        title={numeric ? chart.label : `${clean(chart.label)} →`}
        middle={(left + width - right) / 2}
      />
      {marks.map((mark, k) => (
        <g key={k} className={`qnb-fill-${mark.group % 8}`}>
          <title>{tooltip(mark, chart)}</title>
          {mark.low !== null && mark.high !== null && (
            <line className="qnb-Chart-whisker" x1={x(across[k]!)} x2={x(across[k]!)} y1={y(mark.low)} y2={y(mark.high)} />
          )}
          <SourceMark source={mark.source} x={x(across[k]!)} y={y(mark.value)} small={marks.length > 4 * MOST_LINES} />
        </g>
      ))}
    </svg>
  );
}

function Axis(props: {
  ticks: number[];
  at: (value: number) => number;
  from: number;
  to: number;
  title: string;
  middle: number;
}): JSX.Element {
  return (
    <g>
      {props.ticks.map(tick => (
        <g key={tick}>
          <line className="qnb-Chart-grid" x1={props.at(tick)} x2={props.at(tick)} y1={props.from} y2={props.to} />
          <text x={props.at(tick)} y={props.to + 11} textAnchor="middle">
            {figureWords(tick)}
          </text>
        </g>
      ))}
      <text x={props.middle} y={props.to + 28} textAnchor="middle">
        {clean(props.title)}
      </text>
    </g>
  );
}

function Whisker(props: {
  low: number | null;
  high: number | null;
  at: (value: number) => number;
  y: number;
}): JSX.Element | null {
  if (props.low === null || props.high === null) {
    return null;
  }
  const [start, end] = [props.at(props.low), props.at(props.high)];
  return (
    <path
      className="qnb-Chart-whisker"
      d={`M${start} ${props.y}H${end}M${start} ${props.y - 4}v8M${end} ${props.y - 4}v8`}
    />
  );
}

function range(all: Mark[], fromZero: boolean): [number, number] {
  const ends = all.flatMap(mark => [mark.value, mark.low ?? mark.value, mark.high ?? mark.value]);
  const [low, high] = [Math.min(...ends), Math.max(...ends)];
  if (fromZero) {
    return [Math.min(0, low), Math.max(0, high) || 1];
  }
  const gap = (high - low) * 0.05 || Math.abs(high) * 0.1 || 1;
  return [low >= 0 ? Math.max(0, low - gap) : low - gap, high + gap];
}

/** Ticks are round: "50 k", not "50.0 k". */
function figureWords(value: number): string {
  return Math.abs(value) >= 1e4
    ? compact(value).replace(/\.0+ |(\.\d*[1-9])0+ /, '$1 ')
    : String(Number(value.toPrecision(6)));
}

function tooltip(mark: Mark, chart: Chart): string {
  const band = mark.low === null || mark.high === null ? '' : ` (${number(mark.low)} – ${number(mark.high)})`;
  const group = mark.groupName ? `, ${mark.groupName}` : '';
  const source = mark.source ? `, ${sourceLabel(mark.source)}` : '';
  return clean(`${mark.label}: ${chart.value} ${number(mark.value, Number.isInteger(mark.value))}${band}${group}${source}`);
}

function described(chart: Chart, all: Mark[]): string {
  const top = all.slice(0, 5).map(mark => `${clean(mark.label)} ${number(mark.value, Number.isInteger(mark.value))}`);
  return clean(`${chart.title}: ${chart.value}. ${top.join('; ')}${all.length > 5 ? ' …' : ''}`);
}
