/** What the panel makes of the routes' answers, errors among them; how often it asks is counted. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { bytes, elapsed, plain, share } from '../src/panel/format';
import { findings } from '../src/panel/doctorList';
import { lineage, openingLine, pythonName, relative } from '../src/panel/lineage';
import { type Entry, RouteError, routesOf } from '../src/panel/routes';
import { matching } from '../src/panel/socChooser';
import { PanelState } from '../src/panel/state';

type Answer = { status?: number; body?: unknown } | Error;

/** A server of a few fixed answers that notes what it was asked. */
function server(answers: Record<string, Answer>): { asked: string[]; answers: Record<string, Answer>; state: PanelState } {
  const asked: string[] = [];
  const routes = routesOf(async (path, init) => {
    asked.push(`${init.method ?? 'GET'} ${path}`);
    const answer = answers[path] ?? { status: 404, body: { message: 'Not Found', reason: null } };
    if (answer instanceof Error) {
      throw answer;
    }
    const text = typeof answer.body === 'string' ? answer.body : JSON.stringify(answer.body ?? {});
    return new Response(answer.status === 204 ? null : text, { status: answer.status ?? 200 });
  });
  return { asked, answers, state: new PanelState(routes, 2) };
}

const JOB = { id: '1-a', title: 'context', line: '%qnn context q', pid: 1, started: '2026-01-01T00:00:00+00:00', done: 1, total: 4, text: '', cancelled: false };
const HEALTHY: Record<string, Answer> = {
  doctor: { body: { title: 'doctor', tables: [] } },
  socs: { body: { target: 'SM8650', socs: [] } },
  workspace: { body: { root: '/r', entries: [], cut: false } },
  jobs: { body: { jobs: [] } }
};

function entry(path: string, more: Partial<Entry> = {}): Entry {
  return { path, kind: 'model', title: path, digest: null, soc: null, calibration: null, parents: [], made: null, bytes: null, ...more };
}

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

/** Let time pass, and what it sets off. */
const pass = (ms: number): Promise<unknown> => vi.advanceTimersByTimeAsync(ms);

describe('PanelState', () => {
  it('asks nothing before it is seen', async () => {
    const { asked } = server(HEALTHY);
    await pass(60_000);
    expect(asked).toEqual([]);
  });

  it('asks once for each section when it is seen, and looks for jobs while it is seen', async () => {
    const { asked, state } = server(HEALTHY);
    state.visible = true;
    await pass(100);
    expect([...asked].sort()).toEqual(['GET doctor', 'GET jobs', 'GET socs', 'GET workspace']);
    await pass(10_000);
    expect(asked.filter(each => each === 'GET jobs').length).toBeGreaterThanOrEqual(5);
    state.visible = false;
    await pass(100);
    const before = asked.length;
    await pass(60_000);
    expect(asked.length).toBe(before);
    state.dispose();
  });

  it('goes on looking while a job runs, though hidden, and stops when it has ended', async () => {
    const { asked, answers, state } = server({ ...HEALTHY, jobs: { body: { jobs: [JOB] } } });
    state.visible = true;
    await pass(100);
    state.visible = false;
    await pass(10_000);
    const during = asked.length;
    expect(during).toBeGreaterThan(6);
    answers['jobs'] = { body: { jobs: [] } };
    await pass(10_000);
    expect(asked.length).toBe(during + 1);
    expect(state.running).toBe(false);
    state.dispose();
  });

  it('waits longer and longer while the server fails, and shows no job that it does not know of', async () => {
    const { asked, answers, state } = server({ ...HEALTHY, jobs: { body: { jobs: [JOB] } } });
    state.visible = true;
    await pass(100);
    expect(state.jobs.value).toHaveLength(1);
    vi.spyOn(Math, 'random').mockReturnValue(0.5); // the poll throws dice for how much longer
    answers['jobs'] = new TypeError('Failed to fetch');
    await pass(120_000);
    expect(state.jobs.value).toBeNull();
    expect(state.jobs.error?.message).toBe('The Jupyter server does not answer.');
    expect(asked.filter(each => each === 'GET jobs').length).toBeLessThan(12);
    state.dispose();
  });

  it('says what enables the server extension where there is none', async () => {
    const { state } = server({});
    await state.refresh('socs');
    expect(state.socs.error?.hint).toContain('jupyter server extension enable qnb.server');
    expect(state.socs.value).toBeNull();
  });

  it("shows the server's own words and hint, and what a proxy answers", async () => {
    const { answers, state } = server({ socs: { status: 422, body: { message: 'no such SoC', hint: 'try SM8650' } } });
    await state.refresh('socs');
    expect([state.socs.error?.message, state.socs.error?.hint]).toEqual(['no such SoC', 'try SM8650']);
    answers['socs'] = { status: 502, body: '<html>Bad gateway</html>' };
    await state.refresh('socs');
    expect(state.socs.error?.message).toBe('The server answered 502.');
    answers['socs'] = { body: { other: 1 } };
    await state.refresh('socs');
    expect(state.socs.error?.hint).toContain('different versions');
  });

  it('keeps what the server says is the target, also where a choice was refused', async () => {
    const { asked, answers, state } = server({ ...HEALTHY, target: { status: 422, body: { message: 'unknown', hint: 'see socs' } } });
    await state.choose('SM1');
    expect(asked).toEqual(['PUT target', 'GET socs']);
    expect(state.refused?.message).toBe('unknown');
    expect(state.socs.value?.target).toBe('SM8650');
    answers['target'] = { body: { target: 'SM8550' } };
    await state.choose('SM8550');
    expect(state.refused).toBeNull();
  });

  it('cancels once, and says so until the job is gone', async () => {
    const { asked, answers, state } = server({ ...HEALTHY, jobs: { body: { jobs: [JOB] } }, 'jobs/1-a': { status: 204 } });
    state.visible = true;
    await pass(100);
    void state.cancel('1-a');
    await pass(100);
    expect(asked).toContain('DELETE jobs/1-a');
    expect(state.stopping.has('1-a')).toBe(true);
    answers['jobs'] = { body: { jobs: [] } };
    await pass(5000);
    expect(state.stopping.size).toBe(0);
    state.dispose();
  });

  it('says why a job could not be cancelled', async () => {
    const { state } = server({ ...HEALTHY, 'jobs/x': { status: 404, body: { message: 'no such job', hint: 'it may have ended' } } });
    void state.cancel('x');
    await pass(100);
    expect(state.refused).toBeInstanceOf(RouteError);
    expect(state.stopping.size).toBe(0);
    state.dispose();
  });
});

describe('lineage', () => {
  const paths = (branches: ReturnType<typeof lineage>): unknown[] => branches.map(b => [b.entry.path, paths(b.children)]);

  it('puts what was made below what it was made of, also by a digest that was cut', () => {
    const all = [
      entry('c', { digest: 'c'.repeat(64), parents: ['b'.repeat(12)] }),
      entry('a', { digest: 'a'.repeat(64) }),
      entry('b', { digest: 'b'.repeat(64), parents: ['a'.repeat(64)] }),
      entry('d', { parents: ['0'.repeat(12)] })
    ];
    const tree = lineage(all);
    expect(paths(tree)).toEqual([['a', [['b', [['c', []]]]]], ['d', []]]);
    expect(tree[1]?.absent).toEqual(['0'.repeat(12)]);
  });
  it('shows each once, in a ring too', () => {
    const ring = [entry('a', { digest: 'x', parents: ['y'] }), entry('b', { digest: 'y', parents: ['x'] }), entry('s', { digest: 's', parents: ['s'] })];
    expect(paths(lineage(ring))).toEqual([['b', [['a', []]]], ['s', []]]);
  });
});

describe('lines and names', () => {
  it('opens an entry from where the notebook is', () => {
    expect(openingLine(entry('out/my net'), 'nb/deep')).toBe('my_net = qnb.load("../../out/my net")');
    expect(openingLine(entry('nb/a.onnx', { kind: 'onnx' }), 'nb')).toBe('a = qnb.export("a.onnx")');
    expect(openingLine(entry('a.dlc', { kind: 'dlc' }), '')).toBeNull();
    expect(openingLine(entry('x"y\\z'), '')).toBe('x_y_z = qnb.load("x\\"y\\\\z")');
  });
  it('names variables as Python takes them', () => {
    expect(['1a.onnx', 'class', '…', 'a-b.c.onnx'].map(pythonName)).toEqual(['r_1a', 'class_', 'result', 'a_b_c']);
    expect(relative('a/b/c', 'a/b')).toBe('c');
    expect(relative('a', 'a')).toBe('../a');
  });
});

describe('what is shown', () => {
  it('has units', () => {
    expect([bytes(0), bytes(1536), bytes(5 << 20)]).toEqual(['0 B', '1.5 KiB', '5.0 MiB']);
    expect([elapsed(-5), elapsed(59.9), elapsed(185), elapsed(7620)]).toEqual(['0 s', '59 s', '3 min 05 s', '2 h 07 min']);
    expect([share(1, 4), share(9, 4), share(1, null), share(1, 0)]).toEqual([0.25, 1, null, null]);
  });
  it('lets no name look like another', () => {
    expect(plain('a\u202egnp.onnx\u200b\n')).toBe('a\\u202egnp.onnx\\u200b\\u000a');
    expect(plain('Ωμέγα עברית.onnx')).toBe('Ωμέγα עברית.onnx');
  });
  it('finds SoCs by all words of a search', () => {
    const socs = [
      { part: 'SM8650', name: 'Snapdragon 8 Gen 3', hexagon_arch: 'v75', fp16: true },
      { part: 'SM8350', name: 'Snapdragon 888', hexagon_arch: 'v68', fp16: false }
    ];
    expect(matching(socs, 'gen 3').map(soc => soc.part)).toEqual(['SM8650']);
    expect(matching(socs, 'fp16').map(soc => soc.part)).toEqual(['SM8650']);
    expect(matching(socs, '  ').length).toBe(2);
  });
  it("reads doctor's rows by the names of their columns", () => {
    const table = { title: 't', columns: ['name', 'state', 'new'], rows: [['htp', 'ok', 1], [null, 'failed', 2]] };
    expect(findings({ title: '', tables: [table] })).toMatchObject([{ name: 'htp', state: 'ok', remedy: '' }, { name: '', state: 'failed' }]);
  });
});
