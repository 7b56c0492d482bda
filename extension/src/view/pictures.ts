/** The charts that an output has in its HTML form. */

/** A picture that came with the document: charts as an output has them beside. */
export interface Picture {
  address: string;
  words: string;
}

/** The charts of the HTML form; only PNGs that it holds itself, and nothing else of it. */
export function picturesOf(html: string): Picture[] {
  if (!html) {
    return [];
  }
  const parsed = new DOMParser().parseFromString(html, 'text/html');
  return [...parsed.querySelectorAll('img')]
    .map(image => ({ address: image.getAttribute('src') ?? '', words: image.getAttribute('alt') ?? '' }))
    .filter(picture => /^data:image\/png;base64,[A-Za-z0-9+/=]+$/.test(picture.address));
}
