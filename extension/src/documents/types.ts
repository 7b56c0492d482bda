/** The files that are shown, and which of them are opened so by a double click. */
import type { DocumentRegistry } from '@jupyterlab/docregistry';
import type { TranslationBundle } from '@jupyterlab/translation';

import { netIcon } from './icon';

/** Shown by default: nothing else shows them, or their name tells what they are. */
export function fileTypes(trans: TranslationBundle): DocumentRegistry.IFileType[] {
  const made = (
    name: string,
    displayName: string,
    extensions: string[],
    fileFormat: 'text' | 'base64',
    pattern?: string
  ): DocumentRegistry.IFileType => ({
    name: `qnb-${name}`,
    displayName,
    extensions,
    mimeTypes: fileFormat === 'text' ? ['application/json'] : ['application/octet-stream'],
    fileFormat,
    contentType: 'file',
    icon: netIcon,
    pattern
  });
  return [
    made('onnx', trans.__('ONNX model'), ['.onnx'], 'base64'),
    made('dlc', trans.__('QNN model (DLC)'), ['.dlc'], 'base64'),
    made('context', trans.__('QNN context binary'), ['.bin'], 'base64'),
    made('encodings', trans.__('Encodings'), ['.encodings'], 'text', '^(.*[._-])?encodings([._-][^/]*)?\\.json$'),
    made('result', trans.__('Saved result of qnb'), [], 'text', '^result\\.json$')
  ];
}

/** Also shown where somebody asks for it: "Open With" in the file browser. */
export const ALSO = ['json'];
