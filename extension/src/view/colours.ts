/** Colours that can be told apart, in either theme and with weak colour vision; and the ink that can be read on them. */

/** Okabe-Ito, darkened or lightened to 3:1 against light and dark paper; the style sheet has the same as --qnb-colour-N. */
export const CATEGORIES = ['#0072b2', '#d55e00', '#00875f', '#9c5583', '#8a6d00', '#3f8fc9', '#b0413e', '#5f6b7a'] as const;
export const OTHER = '#8a8f98';
/** Viridis in seven steps: even in lightness, so that it is read without colour, too. */
export const SEQUENCE = ['#440154', '#443983', '#31688e', '#21918c', '#35b779', '#90d743', '#fde725'] as const;
export const BACKENDS: Readonly<Record<string, string>> = { htp: '#0072b2', gpu: '#d55e00', cpu: '#00875f' };

/** Black or white, whichever is read better on a colour. */
export function inkOn(colour: string): string {
  return contrast(colour, '#ffffff') >= contrast(colour, '#000000') ? '#ffffff' : '#000000';
}

/** Contrast ratio of WCAG 2.2, from 1 to 21. */
export function contrast(first: string, second: string): number {
  const [a, b] = [luminance(first), luminance(second)];
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}

function luminance(colour: string): number {
  const [red, green, blue] = [1, 3, 5]
    .map(at => parseInt(colour.slice(at, at + 2), 16) / 255)
    .map(part => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red! + 0.7152 * green! + 0.0722 * blue!;
}
