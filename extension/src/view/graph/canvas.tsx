/** The drawn graph: zoom, pan, choosing a node; by wheel, pinch, drag and keys. */
import { select } from 'd3-selection';
import { zoom, zoomIdentity, zoomTransform, type D3ZoomEvent, type ZoomBehavior } from 'd3-zoom';
import { forwardRef, useEffect, useImperativeHandle, useLayoutEffect, useRef, useState } from 'react';

import type { Graph } from '../document';
import { useWords } from '../translation';
import { NODE_HEIGHT, type Layout } from './layout';
import type { Paint } from './paint';
import { nodeLabel, Scene, type Theme } from './scene';

export interface CanvasHandle {
  zoomBy(factor: number): void;
  fit(): void;
  /** Bring a node to the middle, large enough to be read. */
  show(position: number): void;
}

interface Props {
  graph: Graph;
  layout: Layout;
  paint: Paint;
  selected: number;
  found: ReadonlySet<number>;
  /** Whether the wheel scrolls the page until the graph has the focus. */
  embedded: boolean;
  onSelect: (position: number) => void;
}

const READABLE = 0.75;
const MOST = 3;
const STEP = 60;

export const GraphCanvas = forwardRef<CanvasHandle, Props>(function GraphCanvas(props, handle) {
  const { graph, layout, paint, selected, found, embedded, onSelect } = props;
  const words = useWords();
  const canvas = useRef<HTMLCanvasElement>(null);
  const state = useRef<{ scene: Scene; behaviour: ZoomBehavior<HTMLCanvasElement, unknown>; frame: number }>();
  const latest = useRef(props);
  latest.current = props;
  const [tip, setTip] = useState<{ x: number; y: number; text: string } | null>(null);

  const redraw = (): void => {
    const now = state.current;
    if (now && now.frame === 0) {
      now.frame = requestAnimationFrame(() => {
        now.frame = 0;
        paintNow(canvas.current, now.scene, latest.current);
      });
    }
  };

  useLayoutEffect(() => {
    const element = canvas.current!;
    const scene = new Scene(graph, layout);
    const behaviour = zoom<HTMLCanvasElement, unknown>()
      .filter((event: MouseEvent) => {
        const wheel = event.type === 'wheel';
        return wheel
          ? !latest.current.embedded || event.ctrlKey || document.activeElement === element
          : !event.ctrlKey && !event.button;
      })
      .on('zoom', (_: D3ZoomEvent<HTMLCanvasElement, unknown>) => redraw());
    const chosen = select(element).call(behaviour).on('dblclick.zoom', null);
    state.current = { scene, behaviour, frame: 0 };
    resize(element);
    limit(element, behaviour, layout);
    // A deep network starts at its top, readable; a small one as a whole.
    const whole = fitting(element, layout);
    const scale = Math.max(Math.min(whole, 1), Math.min(READABLE, (element.clientWidth - 24) / layout.width, 1), 0.3);
    behaviour.transform(
      chosen,
      zoomIdentity
        .translate(element.clientWidth / 2 - scale * centre(layout, scale, element), 12)
        .scale(scale)
    );
    paintNow(element, scene, latest.current);
    const observer =
      typeof ResizeObserver === 'undefined'
        ? null
        : new ResizeObserver(() => {
            resize(element);
            limit(element, behaviour, layout);
            paintNow(element, scene, latest.current); // a canvas of a new size is empty
          });
    observer?.observe(element);
    const themes = new MutationObserver(redraw);
    themes.observe(document.body, { attributes: true, attributeFilter: ['data-jp-theme-name'] });
    return () => {
      observer?.disconnect();
      themes.disconnect();
      cancelAnimationFrame(state.current?.frame ?? 0);
      chosen.on('.zoom', null);
      state.current = undefined;
    };
  }, [graph, layout]);

  useEffect(redraw, [paint, selected, found]);

  const control: CanvasHandle = {
    zoomBy: factor => state.current?.behaviour.scaleBy(select(canvas.current!), factor),
    fit: () => {
      const element = canvas.current!;
      const scale = Math.min(fitting(element, layout), 1);
      const [left, top] = [
        (element.clientWidth - scale * layout.width) / 2,
        (element.clientHeight - scale * layout.height) / 2
      ];
      state.current?.behaviour.transform(select(element), zoomIdentity.translate(left, top).scale(scale));
    },
    show: position => {
      const element = canvas.current!;
      const scale = Math.max(zoomTransform(element).k, READABLE);
      state.current?.behaviour.transform(
        select(element),
        zoomIdentity
          .translate(element.clientWidth / 2, element.clientHeight / 2)
          .scale(scale)
          .translate(-layout.x[position]!, -layout.y[position]!)
      );
    }
  };
  useImperativeHandle(handle, () => control);

  const under = (event: { nativeEvent: MouseEvent }): number => {
    const view = zoomTransform(canvas.current!);
    return (
      state.current?.scene.hit(...view.invert([event.nativeEvent.offsetX, event.nativeEvent.offsetY])) ?? -1
    );
  };
  const pan = (x: number, y: number): void => {
    const { k } = zoomTransform(canvas.current!);
    state.current?.behaviour.translateBy(select(canvas.current!), x / k, y / k);
  };
  const keys: Record<string, () => void> = {
    ArrowUp: () => pan(0, STEP),
    ArrowDown: () => pan(0, -STEP),
    ArrowLeft: () => pan(STEP, 0),
    ArrowRight: () => pan(-STEP, 0),
    PageUp: () => pan(0, canvas.current!.clientHeight * 0.9),
    PageDown: () => pan(0, -canvas.current!.clientHeight * 0.9),
    '+': () => control.zoomBy(1.3),
    '=': () => control.zoomBy(1.3),
    '-': () => control.zoomBy(1 / 1.3),
    '0': () => control.fit(),
    f: () => control.fit(),
    n: () => step(1),
    p: () => step(-1),
    Enter: () => (selected === -1 ? step(1) : control.show(selected)),
    Escape: () => onSelect(-1)
  };
  /** To the next op in the order of the list. */
  const step = (by: number): void => {
    const count = graph.nodes.length;
    const next = selected === -1 ? (by > 0 ? 0 : count - 1) : (selected + by + count) % count;
    onSelect(next);
    control.show(next);
  };

  return (
    <div className="qnb-Graph-stage">
      <canvas
        ref={canvas}
        className="qnb-Graph-canvas"
        tabIndex={0}
        role="application"
        aria-roledescription={words.__('graph')}
        aria-label={words.__(
          '%1: %2 ops. Arrow keys move, plus and minus zoom, 0 shows all, n and p go to the next and the previous op. The list beside it names all ops.',
          graph.title || words.__('Graph'),
          graph.nodes.length
        )}
        data-lm-suppress-shortcuts="true"
        onClick={event => onSelect(under(event))}
        onMouseMove={event => {
          const node = event.buttons === 0 ? graph.nodes[under(event)] : undefined;
          const place = { x: event.nativeEvent.offsetX, y: event.nativeEvent.offsetY };
          setTip(before => (node ? { ...place, text: `${node.type}: ${nodeLabel(node)}` } : before && null));
        }}
        onMouseLeave={() => setTip(null)}
        onKeyDown={event => {
          const act = keys[event.key];
          if (act && !event.ctrlKey && !event.metaKey && !event.altKey) {
            event.preventDefault();
            act();
          }
        }}
      />
      {tip && (
        <div className="qnb-Graph-tip" style={{ left: tip.x + 12, top: tip.y + 14 }} aria-hidden="true">
          {tip.text}
        </div>
      )}
      {embedded && <div className="qnb-Graph-hint">{words.__('Click the graph, then the wheel zooms.')}</div>}
    </div>
  );
});

function paintNow(element: HTMLCanvasElement | null, scene: Scene, props: Props): void {
  const context = element?.getContext('2d', { alpha: false });
  if (!element || !context) {
    return;
  }
  const { k, x, y } = zoomTransform(element);
  // The canvas's own size: while a theme is loaded, the page says 0 for a moment.
  const ratio = devicePixelRatio || 1;
  const size = { width: element.width / ratio, height: element.height / ratio, ratio };
  const seen = scene.draw(
    context,
    size,
    { k, x, y },
    props.paint,
    { selected: props.selected, found: props.found },
    theme(element)
  );
  element.dataset.seen = String(seen);
}

function theme(element: HTMLElement): Theme {
  const style = getComputedStyle(element);
  const read = (name: string, otherwise: string): string => style.getPropertyValue(name).trim() || otherwise;
  return {
    paper: read('--jp-layout-color1', '#ffffff'),
    edge: read('--qnb-edge', '#8a8f98'),
    ink: read('--jp-ui-font-color1', '#000000'),
    accent: read('--qnb-accent', '#d55e00'),
    font: read('--jp-code-font-family', 'monospace')
  };
}

function resize(element: HTMLCanvasElement): void {
  const ratio = devicePixelRatio || 1;
  if (element.clientWidth > 0 && element.clientHeight > 0) {
    element.width = Math.round(element.clientWidth * ratio);
    element.height = Math.round(element.clientHeight * ratio);
  }
}

function fitting(element: HTMLCanvasElement, layout: Layout): number {
  return Math.min(
    (element.clientWidth - 24) / Math.max(1, layout.width),
    (element.clientHeight - 24) / Math.max(1, layout.height)
  );
}

/** Where to look at first: the middle, or the first node where the graph is wider than the page. */
function centre(layout: Layout, scale: number, element: HTMLCanvasElement): number {
  return layout.width * scale <= element.clientWidth ? layout.width / 2 : (layout.x[0] ?? 0);
}

function limit(
  element: HTMLCanvasElement,
  behaviour: ZoomBehavior<HTMLCanvasElement, unknown>,
  layout: Layout
): void {
  const room = 400 + NODE_HEIGHT;
  behaviour.extent([
    [0, 0],
    [element.clientWidth, element.clientHeight]
  ]);
  behaviour.scaleExtent([Math.min(0.5, Math.max(1e-4, fitting(element, layout) * 0.8)), MOST]);
  behaviour.translateExtent([
    [-room * 4, -room],
    [layout.width + room * 4, layout.height + room]
  ]);
}
