// Sheets: pages of one canvas, with a sentence of menus and numbers above it and words below. What
// makes one has PALETTES, the colours of the methods.

import { element, later, mark, oncePerFrame, put, say, teller, theme, watch } from "./controls.js";
import { Pad, between } from "./drawing.js";
import { Listed } from "./listed.js";

const SETTLED_MS = 400;
const KEYS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

// A subclass has build(), heightAt(width), paint(c, width), count(): places of the cursor `now`,
// told(): [what is there, what else], step(right, down): the next place, point(x, y): the one there.
export class Sheet {
  constructor(model, el, synced, name) {
    Object.assign(this, { model, synced, state: {}, controls: [], now: 0, tell: teller(model, synced) });
    for (const trait of synced) this.state[trait] = model.get(trait);
    this.root = element("div", el, { className: "lb-explorer" });
    this.head = element("div", this.root, { className: "lb-say" });
    this.stage = element("figure", this.root);
    this.canvas = element("canvas", this.stage, { tabIndex: 0 }, { role: "slider", "aria-label": `${name}; arrow keys`, "aria-valuemin": 0 });
    this.pad = new Pad(this.canvas);
    this.caption = element("figcaption", this.stage);
    this.live = element("div", this.root, { className: "lb-hidden" }, { role: "status", "aria-live": "polite" });
    this.draw = oncePerFrame(() => this.width && this.drawNow());
    this.settle = later(() => this.canvas.matches(":focus") || say(this.live, this.caption.textContent), SETTLED_MS);
    this.build();
    this.watch();
  }

  menu(text, options, get, set) {
    const select = element("select", element("label", this.head, { textContent: `${text} ` }), {}, { "aria-label": text.trim() });
    options.forEach((option, value) => element("option", select, { value, textContent: option }));
    select.addEventListener("change", () => set(Number(select.value)));
    this.controls.push({ update: () => put(select, "value", get()) });
  }

  number(options) {
    const made = new Listed(this.head, options);
    this.controls.push(made);
    return made;
  }

  // Of the method that a name begins with.
  color(name) {
    const look = PALETTES[this.theme.dark ? "dark" : "light"].methods, known = Object.keys(look).filter((method) => name.startsWith(method));
    return known.length ? look[known.reduce((a, b) => (b.length > a.length ? b : a))] : this.theme.inkText;
  }

  watch() {
    const { model, canvas } = this;
    const heard = this.synced.map((name) => [`change:${name}`, () => {
      this.state[name] = model.get(name);
      this.draw();
    }]);
    canvas.addEventListener("keydown", (event) => {
      if (!KEYS[event.key]) return;
      event.preventDefault();
      this.go(this.step(...KEYS[event.key]));
    });
    for (const kind of ["pointermove", "pointerdown"]) canvas.addEventListener(kind, ({ offsetX, offsetY }) => this.go(this.point(offsetX, offsetY)));
    this.close = watch(model, this.root, heard, { sized: () => this.layout(), waits: [this.settle] });
  }

  go(place) {
    const now = between(place ?? this.now, 0, this.count() - 1);
    if (now === this.now) return;
    this.now = now;
    this.draw();
  }

  layout() {
    this.width = this.stage.clientWidth;
    this.theme = theme(this.root);
    this.draw();
  }

  set(changes) {
    Object.assign(this.state, changes);
    this.tell(changes);
    this.draw();
  }

  drawNow() {
    this.pad.fit(this.width, this.heightAt(this.width));
    this.paint(this.pad.clear(), this.width);
    const [text, more] = this.told();
    for (const control of this.controls) control.update();
    mark(this.canvas, { "aria-valuenow": this.now, "aria-valuemax": this.count() - 1, "aria-valuetext": text });
    say(this.caption, `${text} ${more}`);
    this.settle();
    (window.__redraws ||= []).push(performance.now());
  }
}

export const renders = (Kind) => ({ model, el }) => {
  const sheet = new Kind(model, el);
  return () => sheet.close();
};
