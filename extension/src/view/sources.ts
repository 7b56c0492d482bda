/** Where figures come from, how that is marked, and what it means: the words of `qnb.display.style`. */
import type { TranslationBundle } from '@jupyterlab/translation';

export const SOURCES = [
  'device',
  'simulator',
  'host',
  'reference',
  'published',
  'transferred',
  'estimate',
  'tutorial',
  'none'
] as const;
export const MARK = '†';

/** Whether a column holds sources. */
export function isSource(column: string): boolean {
  return column === 'source' || column.endsWith('_source');
}

export function sourceLabel(source: string): string {
  return source === 'device' || source === '' ? source : `${source}${MARK}`;
}

export function sourceMeaning(source: string, trans: TranslationBundle): string {
  switch (source) {
    case 'device':
      return trans.__('measured on a Snapdragon device');
    case 'simulator':
      return trans.__("this host's Hexagon simulator: the arithmetic is the NPU's, the time is not a Snapdragon's");
    case 'host':
      return trans.__(
        "on this host's CPU (QNN's CPU backend; in check, search, calibrate ONNX Runtime), not a Snapdragon's"
      );
    case 'reference':
      return trans.__("fp16 on ONNX Runtime's CPU, standing in for the GPU");
    case 'published':
      return trans.__('a published figure from a table that qnb ships, not measured here');
    case 'transferred':
      return trans.__('a measurement on another chip, scaled to this one');
    case 'estimate':
      return trans.__('computed by a model of the SoC, not measured');
    case 'tutorial':
      return trans.__('a rule of thumb of the tutorial, not a measurement');
    case 'none':
      return trans.__('no figure is given where it would be a guess');
    default:
      return trans.__('not measured on a device');
  }
}

/** The sources that are present, known ones first and in their order. */
export function present(values: Iterable<unknown>): string[] {
  const said = new Set<string>();
  for (const value of values) {
    if (typeof value === 'string' && value !== '') {
      said.add(value);
    }
  }
  const known: string[] = SOURCES.filter(source => said.has(source));
  return [...known, ...[...said].filter(source => !known.includes(source)).sort()];
}
