// The training lab: what the kernel says of its runs is drawn here; buttons and numbers tell it.

import { Scrubbed, element, later, mark, oncePerFrame, put, say, still, teller, theme, watch } from "../shared/controls.js";
import { Pad, between, words } from "../shared/drawing.js";
import { PLOTS, drawAlpha, drawPlot, inWords, reach, valuesAt } from "./plots.js";
import { Speed } from "./speed.js";
import { Table } from "./table.js";

const HEARD = ["method", "model", "dataset", "epochs", "k", "rho", "alpha", "adaptive", "lr", "datasets", "checkpoint", "checkpoints", "runs", "live", "hidden", "message", "failed", "earlier"];
const SET_HERE = ["method", "model", "dataset", "epochs", "k", "rho", "alpha", "adaptive", "lr", "hidden", "checkpoint"];
const SETTLED_MS = 300;
const DASHES = [[], [7, 4], [2, 3], [9, 3, 2, 3], [14, 4]];

class Lab {
  constructor(model, el, setup) {
    Object.assign(this, { model, setup, parts: {}, numbers: {}, pads: [], lit: null, at: null, speed: new Speed(), tell: teller(model, HEARD) });
    this.root = element("div", el, { className: "lb-explorer lb-lab" });
    this.draw = oncePerFrame(() => this.drawNow());
    this.settle = later(() => this.settled(), SETTLED_MS);
    this.build();
    this.parts.around = element("div", el);
    this.watch();
    this.layout();
  }

  get(name) { return this.model.get(name); }

  set(changes) {
    this.tell(changes);
    this.draw();
  }

  // Every run with its look; one that goes on takes the place of what it was.
  runs() {
    const live = this.get("live"), over = this.get("runs").filter(({ key }) => key !== live.key), seen = {};
    const look = this.setup.palettes[this.theme.dark ? "dark" : "light"], hidden = this.get("hidden");
    return [...over, ...(live.key ? [live] : [])].map((run) => {
      const { method } = run.row, n = (seen[method] = (seen[method] ?? -1) + 1);
      return { ...run, color: look[method], dash: DASHES[n % DASHES.length], shown: !hidden.includes(run.key), lit: !this.lit || this.lit === run.key };
    });
  }

  has(axis) { return this.setup.methods[this.get("method")].includes(axis); }

  // ---- what stands where -----------------------------------------------------------------------

  build() {
    const { root, parts } = this;
    this.bar();
    parts.message = element("p", root, { className: "lb-message" }, { role: "status", "aria-live": "polite" });
    parts.earlier = element("ul", root, { className: "lb-earlier" }, { "aria-label": "other runs of this kernel" });
    this.sentence();
    const main = element("div", root, { className: "lb-lab-main" });
    this.movable(main);
    this.plots(main);
    this.table = new Table(root, this);
    const row = element("div", root, { className: "lb-row" });
    parts.after = ["How flat?", "Look around"].map((text, i) => this.button(row, text, ["how_flat", "look_around"][i]));
    parts.csv = button(row, "Download CSV", () => this.table.download());
    this.checkpoints();
  }

  // A button takes along what the controls say: their own messages wait for the kernel, and it would overtake them.
  button(parent, text, act) {
    const state = () => Object.fromEntries(SET_HERE.map((name) => [name, this.get(name)]));
    return button(parent, text, () => this.model.send({ do: act, state: state() }));
  }

  bar() {
    const { parts } = this, bar = element("div", this.root, { className: "lb-row lb-bar" });
    for (const act of ["start", "pause", "stop"]) parts[act] = this.button(bar, act[0].toUpperCase() + act.slice(1), act);
    parts.progress = element("progress", bar, { max: 1 }, { "aria-label": "progress of the run" });
    parts.where = element("span", bar, { className: "lb-soft" });
    parts.reset = this.button(bar, "Reset", "reset");
    parts.reset.title = "stop, hide the curves, put the numbers back";
  }

  sentence() {
    const { parts, setup } = this, line = element("p", this.root, { className: "lb-say" }), add = (text) => line.append(text);
    const pick = (name) => {
      parts[name] = element("select", line, {}, { "aria-label": name });
      parts[name].addEventListener("change", () => this.set({ [name]: parts[name].value }));
    };
    add("Train ");
    pick("model");
    add(" on ");
    pick("dataset");
    add(" by ");
    pick("method");
    add(" for ");
    this.number(line, "epochs", { name: "epochs", low: 1, high: 1e6, step: 1, digits: 0, pixels: 8 });
    add(" epochs.");
    options(parts.model, setup.models.map((name) => [name, name]));
    options(parts.method, Object.keys(setup.methods).map((name) => [name, name]));
  }

  number(parent, name, more) {
    this.numbers[name] = new Scrubbed(parent, { get: () => this.get(name), set: (value) => this.set({ [name]: value }), ...more });
  }

  movable(main) {
    const box = element("div", main, { className: "lb-movable" }, { role: "group", "aria-label": "numbers to move, also while it trains" });
    const add = (text, name, more) => this.number(element("span", box, { textContent: `${text} ` }), name, more);
    add("k", "k", { name: "k, climbing steps", low: 1, high: 10, step: 1, digits: 0, pixels: 16 });
    add("ρ", "rho", { name: "ρ, reach of a climbing step", low: 0, high: 10, step: 0.01, fine: 0.005 });
    add("α", "alpha", { name: "α, share of the way", low: 0, high: 1, step: 0.05, fine: 0.01, pixels: 8, last: "adaptive",
      get: () => (this.get("adaptive") && this.has("adaptive") ? "adaptive" : this.get("alpha")),
      set: (value) => this.set(value === "adaptive" ? { adaptive: true } : { alpha: value, adaptive: false }) });
    add("lr", "lr", { name: "learning rate", low: 0.0001, high: 10, step: 0.005, fine: 0.001, digits: 3 });
  }

  plots(main) {
    const { parts } = this, box = (parts.plots = element("div", main, { className: "lb-plots" }));
    parts.invitation = element("p", main, { className: "lb-invitation", textContent: "The curves of accuracy, loss and sharpness appear here while it trains. Drag a number, type it, or press arrow keys during the run: it counts from the next step on, and a mark on the curves says where." });
    this.pads = PLOTS.map((plot) => {
      const figure = element("figure", box);
      element("figcaption", figure, { textContent: plot.title });
      const canvas = element("canvas", figure, {}, { role: "img", "aria-label": plot.title });
      canvas.addEventListener("pointermove", (event) => this.look(this.epochAt(event.offsetX, canvas)));
      canvas.addEventListener("pointerleave", () => this.look(null));
      return new Pad(canvas);
    });
    const first = this.pads[0].element;
    first.tabIndex = 0;
    mark(first, { role: "slider", "aria-label": `${PLOTS[0].title}; arrow keys read the curves`, "aria-valuemin": 0 });
    first.addEventListener("keydown", (event) => this.step(event));
    first.addEventListener("blur", () => this.look(null));
    parts.read = element("p", box, { className: "lb-read" });
    const figure = (parts.alpha = element("figure", box, { className: "lb-alpha" }));
    parts.alphaSays = element("figcaption", figure);
    this.strip = new Pad(element("canvas", figure, {}, { role: "img", "aria-label": "α of the latest step, first to last layer" }));
  }

  checkpoints() {
    const { parts } = this, box = element("details", this.root);
    element("summary", box, { textContent: "Checkpoints" });
    const row = element("div", box, { className: "lb-row" });
    parts.save = this.button(row, "Save", "save");
    const label = (parts.kept = element("label", row, { textContent: "checkpoint " }));
    parts.checkpoint = element("select", label);
    parts.checkpoint.addEventListener("change", () => this.set({ checkpoint: parts.checkpoint.value }));
    parts.resume = this.button(row, "Resume", "resume");
  }

  watch() {
    const heard = HEARD.map((name) => [`change:${name}`, () => this.draw()]);
    heard.push(["change:around", () => this.showAround()]);
    this.close = watch(this.model, this.root, heard, { sized: () => this.layout(), zoomed: this.draw, waits: [this.settle] });
    if (this.get("around")) this.showAround();
  }

  async showAround() {
    const id = this.get("around"), manager = this.model.widget_manager;
    if (!id || !manager) return;
    const view = await manager.create_view(await manager.get_model(id.slice("IPY_MODEL_".length)));
    this.parts.around.replaceChildren(view.el);
  }

  // ---- what is drawn ---------------------------------------------------------------------------

  layout() {
    this.theme = theme(this.root);
    this.draw();
  }

  drawNow() {
    const across = this.root.clientWidth;
    if (!across) return;
    const runs = this.runs(), shown = runs.filter(({ shown, curves }) => shown && curves.test.length), { parts } = this;
    this.controls(runs);
    put(parts.plots, "hidden", !shown.length);
    put(parts.invitation, "hidden", Boolean(shown.length));
    if (shown.length) this.drawPlots(shown);
    this.table.show(runs);
    this.settle();
    (window.__redraws ||= []).push(performance.now());
  }

  drawPlots(shown) {
    const last = reach(shown), scene = { runs: shown, last, at: this.at, theme: this.theme };
    this.last = last;
    this.pads.forEach((pad, n) => {
      const width = pad.element.parentElement.clientWidth;
      pad.fit(width, Math.round(between(0.72 * width, 160, 250)));
      drawPlot(pad, PLOTS[n], scene);
    });
    const at = this.at ?? last, says = valuesAt(shown, at);
    mark(this.pads[0].element, { "aria-valuenow": Math.round(at), "aria-valuemax": Math.ceil(last), "aria-valuetext": says.slice(0, 400) });
    say(this.parts.read, this.at === null ? "" : says);
    this.drawStrip(shown.at(-1));
  }

  drawStrip(run) {
    const { alpha } = run;
    put(this.parts.alpha, "hidden", !alpha.length);
    if (!alpha.length) return;
    const sorted = [...alpha].sort((a, b) => a[1] - b[1]), [low, high] = [sorted[0], sorted.at(-1)];
    say(this.parts.alphaSays, `α of the latest step, first to last layer: from ${words(low[1], 2)} (${low[0]}) to ${words(high[1], 2)} (${high[0]})`);
    this.strip.fit(this.parts.alpha.clientWidth, 56);
    drawAlpha(this.strip, run, this.theme);
  }

  epochAt(u, canvas) { return between(((u - 40) / (canvas.clientWidth - 50)) * this.last, 0, this.last); }

  look(at) {
    this.at = at;
    this.draw();
  }

  step(event) {
    const by = Math.max(1, Math.round(this.last / 50)), at = this.at ?? this.last;
    const to = { ArrowRight: at + by, ArrowUp: at + by, ArrowLeft: at - by, ArrowDown: at - by, Home: 0, End: this.last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.look(between(Math.round(to), 0, this.last));
  }

  light(key) {
    this.lit = key;
    this.draw();
  }

  toggle(key) {
    const hidden = this.get("hidden");
    this.set({ hidden: hidden.includes(key) ? hidden.filter((one) => one !== key) : [...hidden, key] });
  }

  // ---- controls and words ----------------------------------------------------------------------

  controls(runs) {
    const { parts, model } = this, live = this.get("live"), still = !model.send, under = Boolean(live.key), off = under || still;
    const held = live.state === "paused";
    for (const name of ["method", "model", "dataset", "start", "resume", "checkpoint"]) put(parts[name], "disabled", off);
    for (const name of ["pause", "stop"]) put(parts[name], "disabled", !under || still);
    for (const one of [parts.save, parts.reset, ...parts.after]) put(one, "disabled", still);
    say(parts.pause, held ? "Continue" : "Pause");
    const names = this.get("datasets");
    options(parts.dataset, names.map((name) => [name, name.split(/[\\/]/).filter(Boolean).at(-1) ?? name]));
    const kept = this.get("checkpoints") ?? [];
    options(parts.checkpoint, kept.map((name) => [name, name]));
    put(parts.kept, "hidden", !kept.length);
    for (const name of ["method", "model", "dataset", "checkpoint"]) parts[name].value = this.get(name) ?? "";
    const { k, alpha, epochs } = this.numbers;
    k.high = Math.max(10, this.get("k"));
    alpha.last = this.has("adaptive") ? "adaptive" : undefined;
    for (const name of ["k", "rho", "alpha"]) this.numbers[name].update(still || !this.has(name));
    this.numbers.lr.update(still);
    epochs.update(off);
    this.progress(under ? live : runs.at(-1), under);
    say(parts.message, still ? "A page of its own, without a kernel: it shows the runs and trains none." : this.get("message"));
    put(parts.message, "className", `lb-message${this.get("failed") ? " lb-failed" : ""}`);
    this.showEarlier();
    for (const one of [...parts.after, parts.csv]) put(one, "hidden", !runs.length || (still && one !== parts.csv));
  }

  progress(run, under) {
    const { parts } = this;
    put(parts.progress, "hidden", !run);
    if (!run) return say(parts.where, "");
    put(parts.progress, "value", run.share);
    return say(parts.where, this.speed.words(run, under));
  }

  showEarlier() {
    const earlier = this.get("earlier") ?? [], key = JSON.stringify(earlier), list = this.parts.earlier;
    if (this.earlierKey === key) return;
    this.earlierKey = key;
    put(list, "hidden", !earlier.length);
    list.replaceChildren();
    for (const [run, text] of earlier) {
      const item = element("li", list, { textContent: `Another run still trains: ${text} ` });
      button(item, "Stop", () => this.model.send({ do: "end", key: run }));
    }
  }

  // What need not follow at once: the pictures in words.
  settled() {
    const shown = this.runs().filter((run) => run.shown && run.curves.test.length);
    this.pads.forEach((pad, n) => n && mark(pad.element, { "aria-label": `${PLOTS[n].title}. ${inWords(shown, PLOTS[n])}` }));
  }
}

function button(parent, text, act) {
  const made = element("button", parent, { type: "button", textContent: text });
  made.addEventListener("click", act);
  return made;
}

function options(select, wanted) {
  const key = JSON.stringify(wanted);
  if (select.dataset.options === key) return;
  select.dataset.options = key;
  select.replaceChildren(...wanted.map(([value, textContent]) => element("option", null, { value, textContent })));
}

function render({ model, el }) {
  const lab = new Lab(model, el, SETUP);
  return () => lab.close();
}

export { still };
export default { render };
