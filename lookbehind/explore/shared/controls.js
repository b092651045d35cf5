// Controls that the explorers share: numbers to scrub and to type, handles to drag, words for ears.

import { between } from "./drawing.js";

const STEPS = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 };

export function element(tag, parent, properties = {}, attributes = {}) {
  const made = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.dataset.lmSuppressShortcuts = "true"; // else JupyterLab takes the arrow keys for itself
  parent?.append(made);
  return made;
}

// Changes nothing where nothing changed: to ask a page is dear, and to change it more so.
const known = new WeakMap();

function changed(node, name, value) {
  if (!known.has(node)) known.set(node, new Map());
  const values = known.get(node);
  return values.get(name) !== value && values.set(name, value);
}

export function say(node, text) {
  if (changed(node, "text", text)) node.textContent = text;
}

export function mark(node, attributes) {
  for (const name in attributes) if (changed(node, name, attributes[name])) node.setAttribute(name, attributes[name]);
}

// A property of an element, or with "--" one of its style.
export function put(node, name, value) {
  if (!changed(node, name, value)) return;
  if (name.startsWith("--") || name === "color") node.style.setProperty(name, value);
  else if (node[name] !== value) node[name] = value; // a menu lays itself out anew even for its own value
}

// Follow one pointer from where it goes down: `begin(event)` may refuse with false.
export function drag(node, { begin = () => true, move, end = () => {} }) {
  let held = null;
  node.addEventListener("pointerdown", (event) => {
    if (event.button || begin(event) === false) return;
    held = event.pointerId;
    node.setPointerCapture(held);
  });
  node.addEventListener("pointermove", (event) => event.pointerId === held && move(event));
  for (const kind of ["pointerup", "pointercancel"]) {
    node.addEventListener(kind, (event) => {
      if (event.pointerId !== held) return;
      held = null;
      end(event);
    });
  }
}

// A number in a sentence: drag it sideways, type it, or press arrow keys (Page: ten steps).
// `last` is a word that stands after the highest number, such as "adaptive"; `after` says the text
// that follows a number.
export class Scrubbed {
  constructor(parent, { name, low, high, step, digits = 2, pixels = 6, fine = step, last, after, get, set, className = "" }) {
    Object.assign(this, { low, high, step, digits, last, after, get, set });
    const attributes = { role: "spinbutton", "aria-label": name, "aria-valuemin": low, "aria-valuemax": high, inputmode: "decimal", autocomplete: "off", spellcheck: "false" };
    this.input = element("input", parent, { type: "text", className: `lb-number ${className}` }, attributes);
    this.follows = after && element("span", parent);
    this.input.title = `${name}: drag sideways, type, or press arrow keys${last ? `; after ${this.text(high)} comes ${last}` : ""}`;
    let from = null, moved = false;
    drag(this.input, {
      begin: (event) => {
        moved = false;
        from = [event.clientX, this.position()];
        return !this.input.disabled && document.activeElement !== this.input;
      },
      move: (event) => {
        const way = event.clientX - from[0];
        if (!moved && Math.abs(way) < 4) return;
        moved = true;
        this.go(from[1] + Math.round((way / pixels) * (step / fine)) * fine);
      },
      end: () => moved && this.input.blur(),
    });
    this.input.addEventListener("pointerdown", (event) => document.activeElement !== this.input && event.preventDefault());
    this.input.addEventListener("click", () => moved || this.input.disabled || (this.input.focus(), this.input.select()));
    this.input.addEventListener("keydown", (event) => this.key(event));
    this.input.addEventListener("input", () => this.typed(false));
    this.input.addEventListener("blur", () => this.typed(true));
  }

  position() { return this.get() === this.last ? this.high + this.step : this.get(); }

  go(value) {
    const up = this.last && value > this.high + this.step / 2;
    this.set(up ? this.last : +between(value, this.low, this.high).toFixed(6));
    this.editing = false;
    this.refresh();
  }

  key(event) {
    const by = STEPS[event.key], ends = { Home: this.low, End: this.high };
    if (by) this.go(Math.round((this.position() + by * this.step) / this.step) * this.step);
    else if (event.key in ends && !this.editing) this.go(ends[event.key]);
    else if (event.key === "Enter") this.typed(true);
    else return;
    event.preventDefault();
  }

  typed(done) {
    const text = this.input.value.trim().replace(",", ".").replace("−", "-"), value = Number(text);
    this.editing = !done;
    if (this.last && text && this.last.startsWith(text.toLowerCase())) this.set(this.last);
    else if (text && value >= this.low && value <= this.high && text !== this.text(this.get())) this.set(Number.isInteger(this.step) ? Math.round(value) : value);
    if (done) this.refresh();
  }

  refresh() {
    this.before = NaN;
    this.update();
  }

  text(value) {
    if (value === this.last) return this.last;
    const short = value.toFixed(this.digits);
    return (Math.abs(short - value) > 1e-9 ? String(+value.toPrecision(4)) : short).replace("-", "−");
  }

  update(disabled = this.input.disabled) {
    const value = this.get(), { input } = this;
    if (this.after) say(this.follows, this.after(this.text(value)));
    if (value === this.before && disabled === input.disabled && !this.editing) return;
    const text = this.text(value);
    this.before = this.editing ? NaN : value;
    if (input.disabled !== disabled) input.disabled = disabled;
    mark(input, { "aria-valuenow": Math.round(1e6 * this.position()) / 1e6, "aria-valuetext": text });
    if (this.editing) return;
    if (input.value !== text) input.value = text;
    const width = `${Math.max(text.length, 1) + 0.6}ch`;
    if (input.style.width !== width) input.style.width = width;
  }
}

export const stepWord = (count) => (count === "1" ? " step" : " steps");

// An invisible button over a picture: drag it, or press arrow keys. `key(dx, dy)` gets −1, 0, 1.
export class Handle {
  constructor(parent, { name, move, key, kind = "slider" }) {
    this.node = element("div", parent, { className: "lb-handle", tabIndex: 0, title: name }, { role: kind, "aria-label": name });
    const inside = (event) => {
      const box = parent.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    drag(this.node, { begin: () => !this.node.hidden, move: (event) => move(inside(event)) });
    this.node.addEventListener("keydown", (event) => {
      const far = event.shiftKey ? 5 : 1, way = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
      if (!way) return;
      event.preventDefault();
      key(far * way[0], far * way[1]);
    });
  }

  // Where it lies, or null where there is nothing to hold.
  put(at, value) {
    put(this.node, "hidden", !at);
    if (!at) return;
    this.node.style.transform = `translate(${at[0] - 14}px, ${at[1] - 14}px)`;
    mark(this.node, value);
  }
}

// Call `work` at most once a frame: at once where the last frame is over, else with the next.
export function oncePerFrame(work) {
  let waiting = false, again = false;
  const next = () => {
    waiting = false;
    if (again) run();
  };
  const run = () => {
    again = waiting;
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(next);
    work();
  };
  return run;
}

// Call `work` once nobody has asked for it for `wait` ms. A timer of each call would be dear.
export function later(work, wait) {
  let timer = null, due = 0;
  const look = () => {
    const left = due - performance.now();
    timer = left > 1 ? setTimeout(look, left) : null;
    if (!timer) work();
  };
  const run = () => {
    due = performance.now() + wait;
    timer ??= setTimeout(look, wait);
  };
  run.stop = () => {
    clearTimeout(timer);
    timer = null;
  };
  return run;
}

// Tells what was set of some `names`. At once: ipywidgets holds back itself what comes too fast, and
// only of what it was told does it know that the kernel's echo of an older value is to be ignored.
export function teller(model, names) {
  return (changes) => {
    for (const name of names) if (name in changes && model.get(name) !== changes[name]) model.set(name, changes[name]);
    model.save_changes();
  };
}

export function download(blob, name) {
  const link = element("a", null, { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// The clipboard's own interface is closed on file:// and in some frames: then a text is selected.
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = element("textarea", document.body, { value: text, className: "lb-hidden" });
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

const probe = () => document.createElement("canvas").getContext("2d", { willReadFrequently: true });

export function rgb(color) {
  const c = probe();
  c.fillStyle = color;
  c.fillRect(0, 0, 1, 1);
  return [...c.getImageData(0, 0, 1, 1).data.slice(0, 3)];
}

// Whether a page lies on dark paper, whoever made it dark; and its paper and ink.
export function theme(node) {
  const style = getComputedStyle(node), paper = rgb(style.backgroundColor), ink = rgb(style.color);
  return { dark: paper[0] + paper[1] + paper[2] < 384, paper, ink, paperText: style.backgroundColor, inkText: style.color };
}

// Acts on what a page's own hand does not do: changes of the model, [event, act] each, another size,
// theme or zoom. Returns what ends it, and with it the waits given.
export function watch(model, root, heard, { sized, themed = sized, zoomed = sized, waits }) {
  for (const [event, act] of heard) model.on(event, act);
  const observer = new ResizeObserver(() => sized()), unthemed = onTheme(themed), zoom = () => zoomed();
  observer.observe(root);
  window.addEventListener("resize", zoom); // a zoom changes the pixels of an element of one size
  return () => {
    for (const [event, act] of heard) model.off(event, act);
    observer.disconnect();
    unthemed();
    window.removeEventListener("resize", zoom);
    for (const wait of waits) wait.stop();
  };
}

// Call `work` when the theme of JupyterLab, of the system or of the page changes. Returns the end.
function onTheme(work) {
  const seen = new MutationObserver(work), dark = matchMedia("(prefers-color-scheme: dark)");
  for (const node of [document.body, document.documentElement]) seen.observe(node, { attributes: true });
  dark.addEventListener("change", work);
  return () => {
    seen.disconnect();
    dark.removeEventListener("change", work);
  };
}

// What an anywidget's model is to a page without a kernel behind it.
export function still(state) {
  return { address: state.address, get: (name) => state[name], set: (name, value) => { state[name] = value; }, on() {}, off() {}, save_changes() {} };
}
