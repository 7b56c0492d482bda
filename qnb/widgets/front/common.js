// What the views share. All text from the kernel goes in as text: names of tensors, files and layers are other people's.

/** Make an element; `on…` attributes are listeners, null ones are left out, children may be text. */
function h(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  put(node, attributes);
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** The same for SVG. */
function s(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  put(node, attributes);
  node.append(...children);
  return node;
}

function put(node, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, String(value));
  }
}

let lastId = 0;
const freshId = (what) => `qnb-${what}-${++lastId}`;

/** Replace the children of a node, but leave the keyboard's focus, and the caret, where they were. */
function fill(node, ...children) {
  const active = node.contains(document.activeElement) ? document.activeElement : null;
  const key = active?.dataset?.key;
  const caret = active && "selectionStart" in active ? [active.selectionStart, active.selectionEnd] : null;
  const wanted = children.flat().filter((child) => child !== null && child !== undefined);
  node.replaceChildren(...wanted);
  if (!key) return;
  const again = node.querySelector(`[data-key="${CSS.escape(key)}"]`);
  if (!again) return;
  again.focus({ preventScroll: true });
  try {
    if (caret && caret[0] !== null) again.setSelectionRange(...caret);
  } catch {
    // not an input of text
  }
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return false;
  }
}

/** A line of a notebook with buttons that copy it, and put it into a new cell. */
function lineView(label) {
  const code = h("code", { class: "qnb-code", tabindex: "0", "aria-label": label });
  const said = h("span", { class: "qnb-said", role: "status" });
  let timer = 0;
  const say = (text) => {
    said.textContent = text;
    clearTimeout(timer);
    timer = setTimeout(() => (said.textContent = ""), 4000);
  };
  const copy = async (before = "") => {
    if (await copied(code.textContent)) return say(`${before}Copied.`);
    getSelection()?.selectAllChildren(code);
    say(`${before}Selected: press Ctrl+C to copy.`);
  };
  const insert = async () => {
    const event = new CustomEvent("qnb:insert-cell", { detail: { source: code.textContent }, cancelable: true });
    if (document.dispatchEvent(event)) await copy("No notebook took it. ");
    else say("Inserted below.");
  };
  const node = h(
    "div",
    { class: "qnb-line" },
    code,
    h("button", { class: "qnb-small", onclick: () => copy() }, "Copy"),
    h("button", { class: "qnb-small", onclick: insert }, "Insert as cell"),
    said,
  );
  return { node, set: (text) => (code.textContent = text) };
}

function tableView({ title, columns, rows, notes }) {
  const head = columns.map(({ name, numeric }) => h("th", { scope: "col", class: numeric ? "qnb-number" : null }, name));
  const body = rows.map((row) =>
    h("tr", {}, ...row.map((cell, i) => h("td", { class: columns[i].numeric ? "qnb-number" : null }, cell))),
  );
  return h(
    "div",
    { class: "qnb-table-view" },
    h(
      "div",
      { class: "qnb-scroll", tabindex: "0", role: "region", "aria-label": title },
      h("table", {}, h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...body)),
    ),
    ...notes.map((note) => h("div", { class: "qnb-note" }, note)),
  );
}
