/**
 * Notebooks to begin with. A template says which steps with which values; the lines, and what is said of a step, are
 * made of the server's own description of its steps, so that they fit the qnb that runs them.
 */

import { type Step, written } from '../words/steps';

export interface CellSource {
  type: 'code' | 'markdown';
  source: string;
}

interface Call {
  step: string;
  values?: Record<string, string | boolean>;
  out?: string;
}

export interface Template {
  id: string;
  title: string;
  about: string;
  calls: Call[];
}

const EXPORT: Call = { step: 'export', values: { SOURCE: 'net', '--shapes': 'image=1x3x32x32' }, out: 'model' };
const CALIBRATE: Call = { step: 'calibrate', values: { MODEL: 'model', DATA: 'images' }, out: 'quantized' };

export const TEMPLATES: readonly Template[] = [
  {
    id: 'quickstart',
    title: 'Quickstart',
    about: 'Export, convert, calibrate, compile, run, time, and a report of it all.',
    calls: [
      { step: 'doctor' },
      EXPORT,
      { step: 'convert', values: { MODEL: 'model' } },
      CALIBRATE,
      { step: 'context', values: { BUILD: 'quantized' }, out: 'compiled' },
      { step: 'infer', values: { BUILD: 'compiled', DATA: 'images[:2]' } },
      { step: 'profile', values: { BUILD: 'quantized', '--runs': '3', '--warmup': '1' }, out: 'timing' },
      { step: 'report', values: { BUILD: 'quantized', RESULTS: 'timing', '--file': 'qnn-report.html' } }
    ]
  },
  {
    id: 'calibrate',
    title: 'Calibrate',
    about: 'Quantize with 8 and with 16 bits of activation, and see layer by layer what is lost.',
    calls: [
      EXPORT,
      { ...CALIBRATE, out: 'w8a8' },
      { step: 'calibrate', values: { MODEL: 'model', DATA: 'images', '--precision': 'w8a16' }, out: 'w8a16' },
      { step: 'check', values: { QUANTIZED: 'w8a8', DATA: 'images' }, out: 'checked' },
      { step: 'compare', values: { BUILDS: 'w8a8 w8a16', '--data': 'images[:4]', '--backends': 'htp', '--runs': '3', '--warmup': '1' } }
    ]
  },
  {
    id: 'compare',
    title: 'Compare backends',
    about: 'NPU, GPU and CPU side by side, each in its own precision, and which of them to take.',
    calls: [
      EXPORT,
      CALIBRATE,
      { step: 'compare', values: { BUILDS: 'quantized', '--data': 'images[:4]', '--runs': '3', '--warmup': '1' }, out: 'comparison' },
      { step: 'select', values: { BUILD: 'quantized', '--data': 'images[:4]' } }
    ]
  },
  {
    id: 'profile',
    title: 'Profile',
    about: 'Where the time goes, op by op; what to do about it; what other chips would take.',
    calls: [
      EXPORT,
      CALIBRATE,
      { step: 'profile', values: { BUILD: 'quantized', '--runs': '5', '--warmup': '1' }, out: 'timing' },
      { step: 'debug', values: { BUILD: 'quantized', '--profile': 'timing' } },
      { step: 'estimate', values: { BUILD: 'quantized' } }
    ]
  }
];

const SETUP = `import numpy as np
import torch
from torch import nn

%load_ext qnb`;

const NET = `torch.manual_seed(0)
net = nn.Sequential(
    nn.Conv2d(3, 16, 3, padding=1),
    nn.ReLU(),
    nn.Conv2d(16, 32, 3, stride=2, padding=1),
    nn.ReLU(),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    nn.Linear(32, 10),
)
images = np.random.default_rng(0).standard_normal((16, 3, 32, 32), dtype=np.float32)`;

/**
 * Make the cells of a template.
 *
 * Throws an `Error` where the server's steps do not have what the template asks of them.
 */
export function cellsOf(template: Template, steps: readonly Step[]): CellSource[] {
  const cells: CellSource[] = [
    { type: 'markdown', source: `# ${template.title}\n\n${template.about}` },
    { type: 'code', source: SETUP },
    {
      type: 'markdown',
      source:
        '## The network and its data\n\nAn untrained network and noise, so that everything here runs at once. Put your own in ' +
        'their place: a PyTorch module or the path of an ONNX file, and an array or a folder of samples.'
    },
    { type: 'code', source: NET }
  ];
  template.calls.forEach((call, index) => {
    const step = steps.find(each => each.name === call.step);
    if (!step) {
      throw new Error(`the server's qnb has no step ${call.step}`);
    }
    const { line, problems } = written(step, call.values ?? {}, call.out);
    if (problems.length) {
      throw new Error(problems.join('; '));
    }
    cells.push({ type: 'markdown', source: `## ${index + 1}. ${step.name}\n\n${step.summary}` }, { type: 'code', source: line });
  });
  return cells;
}
