// The parts of the page: what stands where, and which control changes what.

import { Handle, Scrubbed, element, put, say, stepWord } from "../shared/controls.js";
import { Pad, words } from "../shared/drawing.js";
import { moveAlpha, moveRing, moveStart, scrubTime, tapMap } from "./hand.js";

const button = (parent, text, act, attributes = {}) => {
  const made = element("button", parent, { type: "button", textContent: text }, attributes);
  made.addEventListener("click", act);
  return made;
};

function choice(parent, name, options, change) {
  const select = element("select", element("label", parent, { textContent: `${name} ` }), {}, { "aria-label": name });
  for (const [value, text] of options) element("option", select, { value, textContent: text });
  select.addEventListener("change", () => change(select.value));
  return select;
}

// `x` is the explorer. Each part fills x.parts; x.numbers are the scrubbed ones by name.
export function build(x) {
  const { root, parts } = x;
  sentence(x);
  const main = element("div", root, { className: "lb-main" });
  if (x.shows("map")) mapPart(x, main);
  const side = element("div", main, { className: "lb-side" }, { role: "region", "aria-label": "methods and one outer step" });
  chips(x, side);
  if (x.shows("lens")) lensPart(x, side);
  if (x.shows("curves")) timePart(x, main);
  main.classList.toggle("lb-single", !x.shows("map"));
  more(x);
  parts.live = element("div", root, { className: "lb-hidden" }, { role: "status", "aria-live": "polite" });
}

function number(x, parent, name, options) {
  const [low, high] = x.setup.limits[name];
  x.numbers[name] = new Scrubbed(parent, { low, high, get: () => x.state[name], set: (value) => x.set({ [name]: value }), ...options });
}

function sentence(x) {
  const line = element("p", x.root, { className: "lb-say" }), add = (text) => line.append(text);
  add("Climb ");
  number(x, line, "k", { name: "k, climbing steps", after: stepWord, step: 1, digits: 0, pixels: 16, className: "lb-ascent" });
  add(" of ρ = ");
  number(x, line, "rho", { name: "ρ, reach of a climbing step", step: 0.01, pixels: 6, fine: 0.005, className: "lb-ascent" });
  add(" each, descend by the gradients found there, and go α = ");
  number(x, line, "alpha", { name: "α, share of the way", step: 0.05, pixels: 8, fine: 0.01, last: "adaptive", className: "lb-interpolation",
    get: () => (x.state.adaptive ? "adaptive" : x.state.alpha),
    set: (value) => x.set(value === "adaptive" ? { adaptive: true } : { alpha: value, adaptive: false }) });
  add(" of the way.");
}

function mapPart(x, main) {
  const figure = element("figure", main, { className: "lb-mapbox" }), stage = element("div", figure, { className: "lb-stage" });
  x.under = new Pad(element("canvas", stage, { className: "lb-under" }, { "aria-hidden": "true" }));
  const canvas = element("canvas", stage, { className: "lb-map" }, { role: "img", "aria-label": "map of the loss with the paths of the methods" });
  x.map = new Pad(canvas);
  x.mapStage = stage;
  const nudge = (dx, dy) => {
    const [x0, x1, y0, y1] = x.toy.window, [u, v] = x.state.start;
    x.set({ start: [u + (dx * (x1 - x0)) / 100, v + (dy * (y1 - y0)) / 100] });
  };
  x.startHandle = new Handle(stage, { name: "start; drag, or arrow keys", move: (at) => moveStart(x, at), key: nudge });
  x.ringHandle = new Handle(stage, { name: "ρ, the ring's reach; drag, or arrow keys", move: (at) => moveRing(x, at), key: (dx, dy) => x.numbers.rho.go(x.state.rho + 0.01 * (dx + dy)) });
  tapMap(x, canvas);
  x.parts.caption = element("figcaption", figure);
  const row = element("div", figure, { className: "lb-row" });
  x.parts.ends = button(row, "Where would each start end?", () => x.set({ ends: x.state.ends ? "" : "place" }), { "aria-pressed": "false" });
  x.parts.endsBox = element("span", row, { className: "lb-row", hidden: true });
  x.parts.endsBy = choice(x.parts.endsBox, "colored by", [["place", "where it ends"], ["sharpness", "the sharpness there"]], (ends) => x.set({ ends }));
  x.parts.endsOf = choice(x.parts.endsBox, "of", x.setup.methods.map((m) => [m, m]), (lens) => x.set({ lens }));
  x.parts.legend = element("ul", x.parts.endsBox, { className: "lb-legend" });
}

function chips(x, side) {
  const list = element("ul", side, { className: "lb-chips" }, { "aria-label": "methods drawn" });
  x.parts.chips = x.setup.methods.map((method) => {
    const chip = button(element("li", list), "", () => x.toggle(method), { "aria-pressed": "false" });
    element("b", chip, { textContent: method });
    const data = element("span", chip);
    return { method, chip, data };
  });
}

function lensPart(x, side) {
  const figure = element("figure", side, { className: "lb-lensbox" });
  const head = element("div", figure, { className: "lb-row" });
  x.parts.lensOf = choice(head, "one outer step of", x.setup.methods.map((m) => [m, m]), (lens) => x.set({ lens }));
  const stage = element("div", figure, { className: "lb-stage" });
  x.lensUnder = new Pad(element("canvas", stage, { className: "lb-under" }, { "aria-hidden": "true" }));
  x.lens = new Pad(element("canvas", stage, { className: "lb-lens" }, { role: "img", "aria-label": "one outer step, its climbs, descents and interpolation" }));
  x.lens.beside = true;
  x.lensStage = stage;
  x.alphaHandle = new Handle(stage, { name: "α, the share of the way; drag, or arrow keys", move: (at) => moveAlpha(x, at), key: (dx, dy) => x.numbers.alpha.go((x.state.adaptive ? 1 : x.state.alpha) + 0.05 * (dx + dy)) });
  x.parts.lensCaption = element("figcaption", figure);
  const row = element("div", figure, { className: "lb-row lb-player" });
  button(row, "◀ Back", () => x.player.step(-1));
  x.parts.play = button(row, "▶ Play", () => x.player.toggle());
  button(row, "Step ▶", () => x.player.step(1));
  x.parts.scrub = element("input", row, { type: "range", min: 0, step: 0.02, className: "lb-scrub" }, { "aria-label": "place within the outer step" });
  x.parts.scrub.addEventListener("input", () => x.player.scrub(Number(x.parts.scrub.value)));
  x.parts.formulas = element("ul", figure, { className: "lb-formulas" }, { "aria-label": "the formulas of this method" });
}

function timePart(x, main) {
  const figure = element("figure", main, { className: "lb-time" }), head = element("div", figure, { className: "lb-row" });
  x.parts.head = head;
  x.parts.curve = choice(head, "timeline", [["sharpness", "sharpness λmax(φ)"], ["loss", "loss L(φ)"]], (curve) => x.set({ curve }));
  x.parts.timeSays = element("span", head, { className: "lb-soft" });
  const canvas = element("canvas", figure, { className: "lb-timeline", tabIndex: 0 }, { role: "slider", "aria-label": "outer step", "aria-valuemin": 0 });
  x.time = new Pad(canvas);
  scrubTime(x, canvas);
}

function more(x) {
  const acts = element("div", x.parts.head ?? x.root, { className: "lb-row lb-acts" });
  button(acts, "Copy as Python", () => x.copyPython());
  button(acts, "Save picture", () => x.savePicture());
  button(acts, "Reset", () => x.reset());
  x.parts.done = element("span", acts, { className: "lb-soft" });
  const box = element("details", x.root, { className: "lb-more" });
  element("summary", box, { textContent: "More: the loss, learning rate, momentum, steps, start" });
  const row = element("div", box, { className: "lb-row" });
  x.parts.loss = choice(row, "loss", x.toys.map(({ name }) => [name, name]), (loss) => x.chooseLoss(loss));
  x.parts.formula = element("span", row, { className: "lb-formula" });
  const pick = (text, name, options) => {
    const label = element("span", row, { textContent: `${text} ` });
    number(x, label, name, { name: text, ...options });
  };
  pick("learning rate", "lr", { step: 0.005, digits: 3 });
  pick("momentum", "momentum", { step: 0.05, fine: 0.01 });
  pick("steps", "steps", { step: 1, digits: 0 });
  ["x", "y"].forEach((axis, i) => {
    const label = element("span", row, { textContent: `start ${axis} ` });
    x.numbers[`start ${axis}`] = new Scrubbed(label, { name: `start ${axis}`, low: -1000, high: 1000, step: 0.05, fine: 0.01, get: () => x.state.start[i],
      set: (value) => x.set({ start: x.state.start.map((v, n) => (n === i ? value : v)) }) });
  });
  x.parts.lesson = element("p", box, { className: "lb-lesson" });
  const told = element("details", x.root, { className: "lb-words" });
  element("summary", told, { textContent: "The picture in words" });
  x.parts.words = element("p", told, { id: `lb-${Math.random().toString(36).slice(2)}` });
  x.map?.element.setAttribute("aria-describedby", x.parts.words.id);
}

export const legend = (list, rows) => list.replaceChildren(...rows.map(([color, text]) => {
  const item = element("li", null, { textContent: text });
  item.prepend(Object.assign(document.createElement("i"), { style: `background: ${color}` }));
  return item;
}));

export const percent = (share) => `${words(100 * share, 2)} %`;

// `rows`: [kind, text]; the formula of the kind that is being drawn is lit.
export function showFormulas(list, rows, lit) {
  if (list.children.length !== rows.length) list.replaceChildren(...rows.map(() => document.createElement("li")));
  rows.forEach(([kind, text], i) => {
    say(list.children[i], text);
    put(list.children[i], "className", `lb-${kind}${kind === lit ? " lb-lit" : ""}`);
  });
}
