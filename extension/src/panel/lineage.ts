/** Models and artifacts as a tree: what was made of what, by digest. */

import type { Entry } from './routes';

export interface Branch {
  entry: Entry;
  children: Branch[];
  /** Digests that it was made of and that no file of the workspace has. */
  absent: string[];
}

/** Digits of a digest that recipes keep. */
const DIGITS = 12;

/**
 * Put each entry below the first of its parents that is there.
 *
 * Every entry comes once, in the order given; what was made of each other in a ring stays at the top.
 */
export function lineage(entries: readonly Entry[]): Branch[] {
  const branches = entries.map(entry => ({ entry, children: [] as Branch[], absent: [] as string[] }));
  const byDigest = new Map<string, Branch>();
  for (const branch of branches) {
    const digest = brief(branch.entry.digest ?? '');
    if (digest && !byDigest.has(digest)) {
      byDigest.set(digest, branch);
    }
  }
  const above = new Map<Branch, Branch>();
  for (const branch of branches) {
    branch.absent = branch.entry.parents.filter(digest => !byDigest.has(brief(digest)));
    for (const digest of branch.entry.parents) {
      const parent = byDigest.get(brief(digest));
      if (parent && !descends(parent, branch, above)) {
        above.set(branch, parent);
        parent.children.push(branch);
        break;
      }
    }
  }
  return branches.filter(branch => !above.has(branch));
}

function descends(branch: Branch, from: Branch, above: Map<Branch, Branch>): boolean {
  for (let at: Branch | undefined = branch; at; at = above.get(at)) {
    if (at === from) {
      return true;
    }
  }
  return false;
}

/** First digits of a digest, as qnb's tables and recipes have it. */
export function brief(digest: string): string {
  return digest.slice(0, DIGITS);
}

const FILES = new Set(['onnx', 'dlc', 'encodings', 'context binary']);

/** Whether an entry is a saved result, which is a folder, and no single file. */
export function isSaved(entry: Entry): boolean {
  return !FILES.has(entry.kind);
}

/** The line of Python that opens an entry in a notebook of a folder; null for files that Python has no use for. */
export function openingLine(entry: Entry, folder: string): string | null {
  if (!isSaved(entry) && entry.kind !== 'onnx') {
    return null;
  }
  const path = JSON.stringify(relative(entry.path, folder));
  return `${pythonName(entry.path)} = qnb.${isSaved(entry) ? 'load' : 'export'}(${path})`;
}

/** One folder or file seen from another folder: `../models/a.onnx`; both are relative to the server's root. */
export function relative(path: string, folder: string): string {
  const target = path.split('/').filter(Boolean);
  const here = folder.split('/').filter(Boolean);
  let shared = 0;
  while (shared < here.length && shared < target.length - 1 && here[shared] === target[shared]) {
    shared += 1;
  }
  return [...here.slice(shared).map(() => '..'), ...target.slice(shared)].join('/');
}

/** A name that Python takes, made of a file's or a result's: `saved/my net` becomes `my_net`. */
export function pythonName(path: string): string {
  const last = path.split('/').filter(Boolean).pop() ?? '';
  const bare = last.replace(/\.[^.]*$/, '').replace(/\W+/g, '_').replace(/^_+|_+$/g, '');
  const name = /^[A-Za-z]/.test(bare) ? bare : bare ? `r_${bare}` : 'result';
  return KEYWORDS.has(name) ? `${name}_` : name;
}

const KEYWORDS = new Set(
  (
    'and as assert async await break class continue def del elif else except False finally for from global if import in is ' +
    'lambda None nonlocal not or pass raise return True try while with yield'
  ).split(' ')
);
