const WIDTH = 720;
const HEIGHT = 250;
const LEFT = 8;
const RIGHT = WIDTH - 8;
const TOP = 18;
const BOTTOM = HEIGHT - 34;

function render({ model, el }) {
  const send = (message) => model.send(message);
  const get = (name) => model.get(name);

  // --- the list of tensors
  const search = h("input", { type: "search", placeholder: "search tensors", "aria-label": "search tensors", oninput: () => listed() });
  const list = h("div", { class: "qnb-list", role: "listbox", tabindex: "0", "aria-label": "tensors, the worst first", onkeydown: (e) => walked(e) });
  const visible = () => get("tensors").filter(({ name }) => name.toLowerCase().includes(search.value.toLowerCase()));
  const pick = (name) => {
    model.set("tensor", name);
    model.save_changes();
  };
  const listed = () => {
    const options = visible().map(({ name, text, changed }) =>
      h(
        "div",
        { class: "qnb-option", role: "option", id: optionId(name), title: name, "aria-selected": String(name === get("tensor")), onclick: () => pick(name) },
        h("span", {}, changed ? `✎ ${name}` : name),
        h("span", {}, text),
      ),
    );
    fill(list, options.length ? options : h("div", { class: "qnb-note" }, "no tensor of that name"));
    selected();
  };
  const ids = new Map();
  const optionId = (name) => ids.get(name) ?? ids.set(name, freshId("tensor")).get(name);
  const selected = () => {
    const id = optionId(get("tensor"));
    list.setAttribute("aria-activedescendant", id);
    for (const option of list.querySelectorAll("[role=option]")) {
      const is = option.id === id;
      option.setAttribute("aria-selected", String(is));
      if (is) list.scrollTop = Math.min(Math.max(list.scrollTop, option.offsetTop - list.offsetTop + option.offsetHeight - list.clientHeight), option.offsetTop - list.offsetTop);
    }
  };
  const walked = (event) => {
    const names = visible().map(({ name }) => name);
    const at = names.indexOf(get("tensor"));
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: names.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    if (names[to] !== undefined) pick(names[to]);
  };

  // --- the chart
  const bars = s("path", { class: "qnb-bars" });
  const outs = [s("rect", { class: "qnb-out", y: TOP }), s("rect", { class: "qnb-out", y: TOP })];
  const own = s("g", {});
  const axis = s("g", {});
  const codes = s("path", { class: "qnb-code-tick", fill: "none" });
  const handles = { low: handleView("low", "lower end of the range"), high: handleView("high", "upper end of the range") };
  const said = s("text", { x: LEFT, y: 12 });
  const svg = s(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "group", "aria-label": "histogram of the tensor over its quantization grid" },
    bars, ...outs, own, codes, axis, said, handles.low, handles.high,
  );
  let domain = [0, 1];
  let range = { low: 0, high: 1 };
  let waiting = 0;
  const x = (value) => LEFT + ((value - domain[0]) / (domain[1] - domain[0])) * (RIGHT - LEFT);
  const value = (pixel) => domain[0] + ((pixel - LEFT) / (RIGHT - LEFT)) * (domain[1] - domain[0]);
  const shift = (node, at) => node.setAttribute("transform", `translate(${at} 0)`);

  function handleView(end, label) {
    const node = s(
      "g",
      { class: "qnb-handle", role: "slider", tabindex: "0", "aria-label": label, "aria-orientation": "horizontal", "data-key": end },
      s("rect", { x: -10, y: TOP, width: 20, height: BOTTOM - TOP, style: "fill:transparent;stroke:none" }),
      s("line", { x1: 0, x2: 0, y1: TOP, y2: BOTTOM }),
      s("rect", { x: -5, y: (TOP + BOTTOM) / 2 - 12, width: 10, height: 24, rx: 3 }),
    );
    node.addEventListener("pointerdown", (event) => {
      node.setPointerCapture(event.pointerId);
      node.focus({ preventScroll: true });
      event.preventDefault();
    });
    node.addEventListener("pointermove", (event) => {
      if (!node.hasPointerCapture(event.pointerId)) return;
      const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      move(end, value(Math.min(Math.max(place.x, LEFT), RIGHT)));
    });
    node.addEventListener("pointerup", () => send({ do: "keep" }));
    node.addEventListener("keydown", (event) => {
      const step = ((domain[1] - domain[0]) / 200) * (event.shiftKey ? 10 : 1);
      const observed = get("histogram")[end];
      const to = {
        ArrowLeft: range[end] - step, ArrowDown: range[end] - step, ArrowRight: range[end] + step, ArrowUp: range[end] + step,
        PageDown: range[end] - 10 * step, PageUp: range[end] + 10 * step, Home: observed, End: 0,
      }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      event.stopPropagation();
      move(end, to);
    });
    node.addEventListener("keyup", () => send({ do: "keep" }));
    return node;
  }

  /** Move an end of the range: the picture at once, the kernel's figures as fast as they come. */
  function move(end, to) {
    // a grid always holds zero
    const next = { ...range, [end]: end === "low" ? Math.min(to, 0) : Math.max(to, 0) };
    if (get("symmetric")) next[end === "low" ? "high" : "low"] = -next[end];
    if (!(next.high > next.low)) return;
    range = next;
    placed();
    if (waiting) return;
    waiting = requestAnimationFrame(() => {
      waiting = 0;
      model.set({ low: range.low, high: range.high });
      model.save_changes();
    });
  }

  const placed = () => {
    for (const end of ["low", "high"]) {
      const node = handles[end];
      shift(node, x(range[end]));
      node.setAttribute("aria-valuenow", range[end]);
      node.setAttribute("aria-valuemin", end === "low" ? domain[0] : 0);
      node.setAttribute("aria-valuemax", end === "low" ? 0 : domain[1]);
      node.setAttribute("aria-valuetext", short(range[end]));
      if (inputs[end] !== document.activeElement) inputs[end].value = short(range[end]);
    }
    const [left, right] = [x(range.low), x(range.high)];
    put(outs[0], { x: LEFT, width: Math.max(0, left - LEFT), height: BOTTOM - TOP });
    put(outs[1], { x: right, width: Math.max(0, RIGHT - right), height: BOTTOM - TOP });
  };
  const short = (number) => String(Number(number.toPrecision(5)));

  const drawn = () => {
    const { start, width, counts, low, high, own: ends } = get("histogram");
    if (!counts) return;
    range = { low: get("low"), high: get("high") };
    const [from, to] = [Math.min(low, ends[0], range.low), Math.max(high, ends[1], range.high)];
    const margin = 0.06 * (to - from || 1);
    domain = [from - margin, to + margin];
    // several bins to a pixel: the pixel shows their sum
    const columns = new Map();
    counts.forEach((count, i) => {
      if (!count) return;
      const [a, b] = [Math.floor(x(start + i * width)), Math.max(Math.floor(x(start + (i + 1) * width)), Math.floor(x(start + i * width)) + 1)];
      for (let at = a; at < b; at++) columns.set(at, (columns.get(at) ?? 0) + count / (b - a));
    });
    const most = Math.log10(Math.max(...columns.values(), 10) * 1.5);
    const height = (count) => (Math.max(0, Math.log10(count * 1.5)) / most) * (BOTTOM - TOP);
    bars.setAttribute("d", [...columns].map(([at, count]) => `M${at} ${BOTTOM}v${-height(count).toFixed(1)}h1V${BOTTOM}z`).join(""));
    own.replaceChildren(...ends.map((end) => s("line", { class: "qnb-own", x1: x(end), x2: x(end), y1: TOP, y2: BOTTOM })));
    axis.replaceChildren(
      s("line", { class: "qnb-tick", x1: LEFT, x2: RIGHT, y1: BOTTOM, y2: BOTTOM }),
      ...ticks().flatMap((tick) => [
        s("line", { class: "qnb-tick", x1: x(tick), x2: x(tick), y1: BOTTOM, y2: BOTTOM + 8 }),
        s("text", { x: x(tick), y: BOTTOM + 19, "text-anchor": "middle" }, short(tick)),
      ]),
      s("text", { x: (LEFT + RIGHT) / 2, y: HEIGHT - 3, "text-anchor": "middle" }, "real value [the tensor's own unit]; height: values, log scale"),
    );
    placed();
  };
  const ticks = () => {
    const raw = (domain[1] - domain[0]) / 8;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((k) => k * power).find((k) => k >= raw);
    const found = [];
    for (let tick = Math.ceil(domain[0] / step) * step; tick < domain[1]; tick += step) found.push(Math.abs(tick) < step / 1e6 ? 0 : tick);
    return found;
  };

  // --- controls and figures
  const number = (end, label) => {
    const input = h("input", { type: "number", step: "any", "aria-label": label, "data-key": `${end} number` });
    input.addEventListener("change", () => {
      const to = Number(input.value);
      if (!Number.isFinite(to) || input.value === "") return placed();
      move(end, to);
      if (to < domain[0] || to > domain[1]) requestAnimationFrame(drawn);
      send({ do: "keep" });
    });
    return input;
  };
  const inputs = { low: number("low", "lower end"), high: number("high", "upper end") };
  const bits = h("select", { "aria-label": "bits", onchange: () => chosen({ bits: Number(bits.value) }) });
  const symmetric = h("input", { type: "checkbox", onchange: () => chosen({ symmetric: symmetric.checked }) });
  const chosen = (values) => {
    if (values.symmetric) {
      const most = Math.max(-range.low, range.high);
      values = { ...values, low: -most, high: most };
    }
    model.set(values);
    model.save_changes();
    send({ do: "keep" });
  };
  const controls = h(
    "div",
    { class: "qnb-controls" },
    h("label", {}, "low", inputs.low),
    h("label", {}, "high", inputs.high),
    h("label", {}, "bits", bits),
    h("label", {}, symmetric, "symmetric"),
    h("button", { class: "qnb-small", onclick: () => send({ do: "reset" }) }, "Reset"),
  );
  const name = h("div", { class: "qnb-title" });
  const table = h("div", {});
  const notes = h("div", { class: "qnb-note" });
  const problem = h("div", { role: "alert" });
  const saved = h("span", { class: "qnb-said", role: "status" });
  const path = h("input", { type: "text", class: "qnb-path", spellcheck: "false", "aria-label": "file for the overrides", onchange: () => (model.set("path", path.value), model.save_changes()) });
  const save = h("button", { class: "qnb-small", onclick: () => send({ do: "save", path: path.value }) }, "Save overrides…");
  const line = lineView("line that calibrates with these overrides");

  const figures = () => {
    const { grid, rows } = get("figures");
    if (!rows) return;
    const columns = ["", "now", "tried"].map((text, i) => ({ name: text, numeric: i > 0 }));
    fill(table, tableView({ title: "figures of the grid", columns, rows, notes: [] }));
    const [low, high, scale] = grid;
    const wide = x(low + scale) - x(low);
    const count = Math.round((high - low) / scale) + 1;
    said.textContent = `${count.toLocaleString("en")} codes, one each ${short(scale)}${wide < 3 ? "" : " (ticks)"}; dashed: the ends now`;
    const marks = [];
    if (wide >= 3) for (let k = 0; k < count; k++) marks.push(`M${x(low + k * scale).toFixed(1)} ${BOTTOM}v5`);
    codes.setAttribute("d", marks.join(""));
  };
  const values = () => {
    if (!waiting) range = { low: get("low"), high: get("high") };
    bits.replaceChildren(...get("bit_widths").map((n) => h("option", { value: n, selected: n === get("bits") }, n)));
    symmetric.checked = get("symmetric");
    placed();
  };
  const texts = () => {
    name.textContent = get("tensor");
    notes.textContent = get("notes").join(" · ");
    path.value = get("path");
    line.set(get("line"));
    const news = get("said");
    fill(problem, news.what ? h("div", { class: "qnb-error" }, h("div", {}, news.what), news.hint ? h("div", {}, `Next: ${news.hint}`) : null) : null);
    saved.textContent = news.done ?? "";
  };
  const working = h("div", { class: "qnb-wide qnb-actions" });
  const bar = h("progress", { "aria-label": "progress of counting" });
  const doing = h("span", { class: "qnb-text", role: "status" });
  working.append(h("button", { class: "qnb-small", onclick: () => send({ do: "cancel" }) }, "Cancel"), bar, doing);
  const failed = h("div", { class: "qnb-wide", role: "alert" });
  const states = () => {
    const state = get("state");
    working.hidden = state.state !== "running";
    doing.textContent = `counting values: ${state.text ?? ""}`;
    if (state.total) put(bar, { max: state.total, value: state.done });
    fill(failed, state.error ? h("div", { class: "qnb-error" }, h("div", {}, state.error.what), h("div", {}, state.error.hint)) : null);
    left.hidden = right.hidden = !get("tensors").length;
  };
  const left = h("div", {}, search, list);
  const right = h(
    "div",
    {},
    name, svg, controls, table, notes, problem,
    h("div", { class: "qnb-controls" }, h("label", {}, "file", path), save, saved),
    line.node,
  );
  el.append(
    h("div", { class: "qnb-live qnb-explorer" }, h("header", {}, h("h2", { class: "qnb-h" }, "Calibration explorer")), working, failed, left, right),
  );

  const follow = [
    ["tensors", () => (listed(), states())], ["tensor", () => (selected(), texts())], ["histogram", drawn],
    ["low", values], ["high", values], ["bits", values], ["symmetric", values], ["figures", figures], ["notes", texts], ["said", texts],
    ["path", texts], ["line", texts], ["state", states],
  ];
  for (const [trait, show] of follow) model.on(`change:${trait}`, show);
  listed();
  values();
  drawn();
  figures();
  texts();
  states();
  return () => {
    for (const [trait, show] of follow) model.off(`change:${trait}`, show);
    cancelAnimationFrame(waiting);
  };
}

export default { render };
