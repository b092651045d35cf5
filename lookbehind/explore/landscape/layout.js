// The parts of the page: what stands where, and which control changes what.

import { nearest } from "../shared/canvas.js";
import { Handle, Scrubbed, element, mark, put, say, stepWord } from "../shared/controls.js";
import { Pad, words } from "../shared/drawing.js";
import { moveGrip } from "./hand.js";
import { QUANTITIES } from "./scale.js";

const VIEWS = { profile: "1D profile", contours: "2D contours", surface: "3D surface" };
const LAYERS = { path: "training path", climb: "climb", ball: "ρ-ball" };
const STATISTICS = { stored: "stored", reestimated: "re-estimated" };

// A number out of a list: a step is the next in it.
class Listed extends Scrubbed {
  constructor(parent, { values, get, set, ...rest }) {
    super(parent, { low: 0, high: values.length - 1, step: 1, pixels: 18, get: () => nearest(values, get()), set: (i) => set(values[i]), ...rest });
    this.values = values;
    mark(this.input, { "aria-valuemin": values[0], "aria-valuemax": values.at(-1) });
    this.input.title = `${rest.name}: drag sideways, type, or press arrow keys; from ${values[0]} to ${values.at(-1)}`;
    this.refresh();
  }

  text(i) { return this.values ? String(this.values[i]) : ""; }

  typed(done) {
    const value = Number(this.input.value.trim().replace(",", "."));
    this.editing = !done;
    if (value >= this.values[0] && value <= this.values.at(-1)) this.set(nearest(this.values, value));
    if (done) this.refresh();
  }

  update(disabled) {
    super.update(disabled);
    if (this.values) mark(this.input, { "aria-valuenow": this.values[this.position()] });
  }
}

function button(parent, text, act, attributes = {}) {
  const made = element("button", parent, { type: "button", textContent: text }, attributes);
  made.addEventListener("click", act);
  return made;
}

function choice(x, parent, trait, name, options) {
  const select = element("select", element("label", parent, { textContent: `${name} ` }), {}, { "aria-label": name });
  x.parts[trait] = { select, offer: (pairs) => select.replaceChildren(...pairs.map(([value, textContent]) => element("option", null, { value, textContent }))) };
  x.parts[trait].offer(options);
  select.addEventListener("change", () => x.set({ [trait]: typeof x.state[trait] === "number" ? Number(select.value) : select.value }));
}

// `x` is the explorer. Each part fills x.parts; x.numbers are the scrubbed ones by name.
export function build(x) {
  const { root, parts } = x;
  parts.chips = element("ul", root, { className: "lb-chips" }, { "aria-label": "networks drawn" });
  x.alive ? plane(x) : (parts.plane = element("p", root, { className: "lb-plane" }));
  const figure = element("figure", root), head = element("div", figure, { className: "lb-row lb-head" });
  sentence(x, element("p", head, { className: "lb-say" }));
  parts.views = group(head, "view", VIEWS, (mode) => x.set({ mode }));
  choice(x, head, "quantity", "quantity", Object.entries(QUANTITIES));
  parts.layers = group(head, "drawn on it", LAYERS, (name) => x.toggleLayer(name));
  turning(x, head);
  stage(x, figure);
  parts.says = element("ul", element("figcaption", figure), { className: "lb-says" });
  const told = element("details", root, { className: "lb-words" });
  element("summary", told, { textContent: "The picture in words" });
  parts.words = element("p", told, { id: `lb-${Math.random().toString(36).slice(2)}` });
  x.over.element.setAttribute("aria-describedby", parts.words.id);
  parts.live = element("div", root, { className: "lb-hidden" }, { role: "status", "aria-live": "polite" });
}

// What computes anew in the kernel.
function plane(x) {
  const { root, parts } = x, row = element("div", root, { className: "lb-row lb-plane" }, { role: "group", "aria-label": "the plane" });
  for (const [trait, name] of [["first", "direction a"], ["second", "direction b"]]) choice(x, row, trait, name, []);
  const range = element("span", row, { textContent: "range ± " });
  x.numbers.half = new Listed(range, { name: "range ±", values: x.setup.ranges, get: () => x.state.half, set: (half) => x.set({ half }) });
  choice(x, row, "points", "points", x.setup.points.map((n) => [n, `${n} × ${n}`]));
  choice(x, row, "statistics", "BatchNorm", x.setup.statistics.map((name) => [name, STATISTICS[name]]));
  const state = element("div", root, { className: "lb-row lb-state" });
  parts.message = element("span", state, {}, { role: "status" });
  parts.progress = element("progress", state, { max: 1 }, { "aria-label": "computed" });
  parts.stop = button(state, "Stop", () => x.model.send({ kind: "stop" }));
}

function sentence(x, line) {
  const add = (text) => line.append(text);
  add("Climb ");
  x.numbers.k = new Scrubbed(line, { name: "k, climbing steps", after: stepWord, low: 1, high: x.setup.steps, step: 1, digits: 0, pixels: 16, className: "lb-ascent", get: () => x.state.k, set: (k) => x.set({ k }) });
  add(" of ρ = ");
  x.numbers.rho = new Listed(line, { name: "ρ, reach of a climbing step", values: x.setup.radii, className: "lb-ascent", get: () => x.state.rho, set: (rho) => x.set({ rho }) });
  add(" each.");
}

function group(parent, name, options, act) {
  const box = element("div", parent, { className: "lb-group" }, { role: "group", "aria-label": name });
  return Object.fromEntries(Object.entries(options).map(([key, text]) => [key, button(box, text, () => act(key), { "aria-pressed": "false" })]));
}

// Where the eye is: a drag of the surface, or these.
function turning(x, head) {
  const box = (x.parts.eye = element("span", head, { hidden: true })), radians = (v) => (v * Math.PI) / 180;
  box.append("turned ");
  x.numbers.turned = new Scrubbed(box, { name: "turned, degrees", low: -180, high: 180, step: 5, digits: 0, get: () => ((degrees(x.azimuth) + 540) % 360) - 180, set: (v) => x.turn(radians(v), x.elevation) });
  box.append("°, from above by ");
  x.numbers.above = new Scrubbed(box, { name: "from above, degrees", low: 3, high: 90, step: 5, digits: 0, get: () => degrees(x.elevation), set: (v) => x.turn(x.azimuth, radians(v)) });
  box.append("°");
}

function stage(x, figure) {
  const box = (x.stage = element("div", figure, { className: "lb-stage" }));
  x.under = new Pad(element("canvas", box, { className: "lb-under" }, { "aria-hidden": "true" }));
  x.over = new Pad(element("canvas", box, { className: "lb-over" }, { role: "img" }));
  x.probeHandle = new Handle(box, { name: "read-out point; arrow keys move it", move: () => {}, key: (dx, dy) => x.moveProbe(dx, dy) });
  x.probeHandle.node.classList.add("lb-probe");
  for (const [event, on] of [["focus", true], ["blur", false]]) x.probeHandle.node.addEventListener(event, () => x.showProbe(on));
  x.gripHandle = new Handle(box, { name: "ρ, the ball's reach; drag, or arrow keys", move: ([u]) => moveGrip(x, [u]), key: (dx, dy) => x.numbers.rho.go(x.numbers.rho.position() + Math.sign(dx + dy)) });
  x.parts.tip = element("div", box, { className: "lb-tip", hidden: true }, { "aria-hidden": "true" });
}

// A chip a network; the last one that is drawn stays.
export function showChips(x, names) {
  const { parts } = x, key = names.join("\n");
  if (parts.key === key) return;
  parts.key = key;
  parts.networks = Object.fromEntries(names.map((name) => {
    const chip = button(element("li", null), "", () => x.toggle(name), { "aria-pressed": "false" });
    element("b", chip, { textContent: name });
    return [name, { chip, data: element("span", chip) }];
  }));
  parts.chips.replaceChildren(...Object.values(parts.networks).map(({ chip }) => chip.parentElement));
}

export const planeInWords = ({ first, second, half, points, statistics }) =>
  `Planes along a: ${first}, and b: ${second}; from −${words(half)} to ${words(half)} at ${points} × ${points} points; BatchNorm ${STATISTICS[statistics]}. Other planes need a kernel: run the notebook.`;

export const degrees = (v) => Math.round((v * 180) / Math.PI);

// A line a network, with a dot of its colour.
export function showSays(list, rows) {
  while (list.children.length > rows.length) list.lastChild.remove();
  while (list.children.length < rows.length) {
    const row = element("li", list);
    element("i", row, { textContent: "● " }, { "aria-hidden": "true" });
    element("span", row);
  }
  rows.forEach(([color, text], i) => {
    put(list.children[i].firstChild, "color", color);
    say(list.children[i].lastChild, text);
  });
}
