/** A shape and a pattern for each source: they are told apart without colour, in print, too. */
const SHAPES: Readonly<Record<string, string>> = {
  device: 'M0-5A5 5 0 1 1 0 5A5 5 0 1 1 0-5Z',
  simulator: 'M0-6L6 0L0 6L-6 0Z',
  host: 'M-4.5-4.5H4.5V4.5H-4.5Z',
  reference: 'M0-6L5.5 4.5H-5.5Z',
  published: 'M0 6L5.5-4.5H-5.5Z',
  transferred: 'M-2-6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z',
  estimate: 'M-5-3.5L-3.5-5L0-1.5L3.5-5L5-3.5L1.5 0L5 3.5L3.5 5L0 1.5L-3.5 5L-5 3.5L-1.5 0Z'
};

/** Lines of the pattern of each source, in a square of eight. */
const PATTERNS: Readonly<Record<string, string>> = {
  simulator: 'M-2 2L2-2M0 8L8 0M6 10L10 6',
  host: 'M2 2h.01M6 6h.01',
  reference: 'M-2 6L2 10M0 0L8 8M6-2L10 2',
  published: 'M0 4H8',
  transferred: 'M4 0V8',
  estimate: 'M0 0L8 8M8 0L0 8'
};
const OTHER = 'M0 2H8M0 6H8';

export function SourceMark(props: { source: string; x: number; y: number; small?: boolean }): JSX.Element {
  const shape = SHAPES[props.source] ?? SHAPES.device;
  return (
    <path
      className="qnb-Chart-mark"
      d={shape}
      transform={`translate(${props.x} ${props.y})${props.small ? ' scale(0.6)' : ''}`}
    />
  );
}

/** Sources that are drawn with a pattern: all but a device, and none at all. */
export function isHatched(source: string): boolean {
  return source !== 'device' && source !== '';
}

export function patternId(id: string, source: string): string {
  return `${id}-${source in PATTERNS ? source : 'other'}`;
}

/** The patterns that a drawing uses; they are laid over the colour in the colour of the paper. */
export function Hatches({ id, sources }: { id: string; sources: string[] }): JSX.Element {
  return (
    <defs>
      {sources
        .filter(isHatched)
        .map(source => (
          <pattern key={source} id={patternId(id, source)} width={8} height={8} patternUnits="userSpaceOnUse">
            <path
              className={source === 'host' ? 'qnb-Chart-dots' : 'qnb-Chart-stripes'}
              d={PATTERNS[source] ?? OTHER}
            />
          </pattern>
        ))}
    </defs>
  );
}
