const STATES = {
  idle: ["○", "not begun"],
  running: ["◐", "running"],
  done: ["●", "done"],
  failed: ["✕", "failed"],
  cancelled: ["◌", "stopped"],
};

function render({ model, el }) {
  const send = (message) => model.send(message);
  const views = new Map();
  const tiles = h("div", { class: "qnb-tiles", role: "list", "aria-label": "key figures" });
  const problem = h("div", { role: "alert" });
  const title = h("h2", { class: "qnb-h" });
  const all = h("button", { class: "qnb-small", onclick: () => send({ do: "run" }) }, "Run all");
  const list = h("div", { class: "qnb-cards" });
  const root = h("div", { class: "qnb-live qnb-panel" }, h("header", {}, title, all), problem, tiles, list);
  el.append(root);

  const cards = () => {
    title.textContent = model.get("title");
    list.style.setProperty("--qnb-columns", model.get("columns"));
    const found = model.get("cards");
    all.hidden = !found.some((card) => card.action);
    found.forEach((card, index) => {
      let view = views.get(card.id);
      if (!view) {
        view = cardView(card.id, send);
        views.set(card.id, view);
        list.append(view.node);
        if (index === 0 || found.length < 4) view.node.open = true;
      }
      view.card(card, card.action && found.length > 3 ? `${index + 1}. ` : "");
    });
  };
  const states = () => {
    const found = model.get("states");
    const busy = Object.values(found).some((state) => state.state === "running");
    all.disabled = busy;
    for (const [id, state] of Object.entries(found)) views.get(id)?.state(state, busy);
  };
  const results = () => {
    for (const [id, result] of Object.entries(model.get("results"))) views.get(id)?.result(result);
  };
  const pictures = () => {
    for (const [id, picture] of Object.entries(model.get("pictures"))) views.get(id)?.picture(picture);
  };
  const figures = () => {
    const found = model.get("tiles");
    const groups = [...new Set(found.map((tile) => tile.group))];
    tiles.hidden = !found.length;
    fill(
      tiles,
      groups.map((group) =>
        h(
          "div",
          { class: "qnb-tile", role: "listitem", "data-group": group },
          h("h3", { class: "qnb-h" }, group),
          ...found
            .filter((tile) => tile.group === group)
            .map((tile) =>
              h(
                "div",
                {},
                h("span", { class: "qnb-what" }, tile.name),
                h("b", {}, `${tile.value} ${tile.unit}`.trim()),
                h("span", { class: "qnb-source" }, tile.source),
              ),
            ),
        ),
      ),
    );
  };
  const problems = () => {
    const said = model.get("problem");
    fill(problem, said.what ? errorView(said) : null);
  };
  const follow = { cards, states, results, pictures, tiles: figures, problem: problems };
  for (const [name, show] of Object.entries(follow)) {
    show();
    model.on(`change:${name}`, show);
  }
  model.on("change:title", cards);
  return () => {
    for (const [name, show] of Object.entries(follow)) model.off(`change:${name}`, show);
    model.off("change:title", cards);
    for (const view of views.values()) view.gone();
  };
}

function errorView({ kind, what, hint }) {
  return h(
    "div",
    { class: "qnb-error" },
    h("div", {}, kind ? h("b", {}, `${kind}: `) : null, what),
    hint ? h("div", {}, `Next: ${hint}`) : null,
  );
}

function cardView(id, send) {
  const badge = h("span", { class: "qnb-badge" });
  const name = h("span", { class: "qnb-name" });
  const summary = h("p", { class: "qnb-summary" });
  const fields = h("div", { class: "qnb-fields" });
  const line = lineView("line that does the same");
  const run = h("button", { class: "qnb-run", onclick: () => send({ do: "run", card: id }) });
  const cancel = h("button", { class: "qnb-small", hidden: true, onclick: () => send({ do: "cancel", card: id }) }, "Cancel");
  const bar = h("progress", { hidden: true });
  const text = h("span", { class: "qnb-text", role: "status" });
  const error = h("div", { role: "alert" });
  const pick = h("div", { class: "qnb-pick" });
  const image = h("img", { hidden: true });
  const problem = h("div", { class: "qnb-note" });
  const result = h("div", { class: "qnb-result" });
  const log = h("pre", { tabindex: "0" });
  const logs = h("details", { class: "qnb-log", hidden: true }, h("summary", {}, "Log"), log);
  const actions = h("div", { class: "qnb-actions" }, run, cancel, bar, text);
  const node = h(
    "details",
    { class: "qnb-card", "data-card": id },
    h("summary", {}, badge, name),
    summary,
    fields,
    line.node,
    actions,
    error,
    pick,
    image,
    problem,
    result,
    logs,
  );
  const rows = new Map();
  let told = "";
  let before = "idle";
  let drawn = null;
  let charts = [];
  let chosen = 0;
  let url = null;

  const picked = () => {
    if (charts.length < 2) return fill(pick);
    const key = freshId("chart");
    const options = charts.map((caption, i) => h("option", { value: i, selected: i === chosen }, caption));
    const choose = (event) => send({ do: "choose", card: id, chart: Number(event.target.value) });
    fill(pick, h("label", { for: key }, "Chart"), h("select", { id: key, "data-key": "chart", onchange: choose }, ...options));
  };

  return {
    node,
    card(card, number) {
      name.textContent = number + card.title;
      summary.textContent = card.summary;
      line.set(card.line);
      line.node.hidden = actions.hidden = !card.action;
      run.textContent = card.action;
      const set = (field, value) => send({ do: "set", card: id, name: field, value });
      const found = [...card.fields];
      if (card.action) found.push({ name: "target", label: "result in", kind: "text", value: card.target, suggestions: [], help: "Variable that the result gets." });
      // what did not change stays: whoever writes in it goes on writing
      let changed = false;
      for (const field of found) {
        const now = JSON.stringify(field);
        if (rows.get(field.name)?.now === now) continue;
        changed = true;
        if (field.kind === "several" && rows.has(field.name)) rows.get(field.name).node.take(field.value);
        else rows.set(field.name, { node: fieldView(field, set, () => send({ do: "refresh" })) });
        rows.get(field.name).now = now;
      }
      if (changed) fill(fields, found.map((field) => rows.get(field.name).node));
    },
    state(state, busy) {
      const [mark, said] = STATES[state.state];
      badge.textContent = mark;
      badge.dataset.state = node.dataset.state = state.state;
      badge.setAttribute("title", said);
      badge.setAttribute("aria-label", said);
      const running = state.state === "running";
      run.disabled = busy;
      bar.hidden = cancel.hidden = !running;
      bar.setAttribute("aria-label", `progress of ${id}`);
      if (state.total) {
        bar.max = state.total;
        bar.value = state.done;
      } else bar.removeAttribute("value");
      const seconds = state.seconds ? ` · ${state.seconds.toFixed(1)} s` : "";
      text.textContent = running ? `${state.text || "running"}${seconds}` : state.state === "idle" ? "" : said + seconds;
      fill(error, state.error ? errorView(state.error) : null);
      if (state.state !== before && (running || state.error)) node.open = true;
      before = state.state;
    },
    result(found) {
      const now = JSON.stringify(found);
      if (now === told) return;
      told = now;
      charts = found.charts;
      picked();
      const tables = found.tables.map((table, i) => {
        const body = tableView(table);
        if (i === 0) return [h("div", { class: "qnb-title" }, table.title), body];
        return h("details", {}, h("summary", {}, `${table.title} (${table.rows.length} rows)`), body);
      });
      fill(result, tables.flat(), ...found.notes.map((note) => h("div", { class: "qnb-note" }, note)));
      log.textContent = found.log;
      logs.hidden = !found.log;
      if (found.tables.length) node.open = true;
    },
    picture(found) {
      problem.textContent = found.problem;
      chosen = found.chart;
      picked();
      image.hidden = !found.png?.byteLength;
      image.alt = found.alt;
      if (image.hidden || found.crc === drawn) return;
      drawn = found.crc;
      if (url) URL.revokeObjectURL(url);
      url = URL.createObjectURL(new Blob([found.png], { type: "image/png" }));
      image.src = url;
      image.width = found.width;
    },
    gone() {
      if (url) URL.revokeObjectURL(url);
    },
  };
}

function fieldView(field, set, refresh) {
  const id = freshId("field");
  const about = { id, "data-key": field.name, title: field.help, "aria-describedby": `${id}-help` };
  const help = h("span", { id: `${id}-help`, class: "qnb-hidden" }, field.help);
  const label = h("label", { for: id, title: field.help }, field.label);
  if (field.kind === "flag") {
    const box = h("input", { ...about, type: "checkbox", checked: field.value, onchange: (e) => set(field.name, e.target.checked) });
    return h("div", { class: "qnb-field" }, label, box, help);
  }
  if (field.kind === "choice") {
    const options = field.options.map(([value, text]) => h("option", { value, selected: value === field.value }, text));
    const select = h("select", { ...about, onchange: (e) => set(field.name, e.target.value) }, ...options);
    return h("div", { class: "qnb-field" }, label, select, help);
  }
  if (field.kind === "several") return severalView(field, id, set);
  const list = `${id}-list`;
  const input = h("input", {
    ...about,
    type: "text",
    value: field.value,
    placeholder: field.placeholder,
    list: field.suggestions.length ? list : null,
    spellcheck: "false",
    autocomplete: "off",
    onchange: (e) => set(field.name, e.target.value),
    onfocus: refresh,
  });
  const options = field.suggestions.map((value) => h("option", { value }));
  return h("div", { class: "qnb-field" }, label, input, h("datalist", { id: list }, ...options), help);
}

function severalView(field, id, set) {
  const boxes = field.options.map(([value, text], i) => {
    const box = h("input", { type: "checkbox", value, checked: field.value.includes(value), "data-key": `${field.name} ${value}` });
    box.addEventListener("change", () => set(field.name, boxes.filter((b) => b.box.checked).map((b) => b.box.value)));
    return { box, text, node: h("label", { class: "qnb-box" }, box, text) };
  });
  const search = h("input", {
    type: "search",
    placeholder: "search",
    "aria-label": `search ${field.label}`,
    "data-key": `${field.name} search`,
    oninput: (e) => {
      const wanted = e.target.value.toLowerCase();
      for (const { box, text, node } of boxes) node.hidden = !box.checked && !text.toLowerCase().includes(wanted);
    },
  });
  const node = h(
    "div",
    { class: "qnb-field qnb-several", role: "group", "aria-labelledby": `${id}-name` },
    h("span", { id: `${id}-name`, title: field.help }, field.label),
    h("div", {}, boxes.length > 8 ? search : null, h("div", { class: "qnb-boxes" }, ...boxes.map((b) => b.node))),
  );
  node.take = (chosen) => boxes.forEach(({ box }) => (box.checked = chosen.includes(box.value)));
  return node;
}

export default { render };
