// The toy explorer: its state, and what is drawn when it changes. No kernel computes anything here,
// except for a loss that is a Python function.

import { copy, download, later, oncePerFrame, say, still, teller, theme, watch } from "../shared/controls.js";
import { Pad, between, spanOf, words } from "../shared/drawing.js";
import { Ends } from "./ends.js";
import { build } from "./layout.js";
import { fromHash, python, sheet, toHash } from "./links.js";
import { drawLens, drawLensUnder, drawMap, drawTime, drawUnder, lensView, mapView } from "./pictures.js";
import { Player } from "./player.js";
import { advice, arrowsOf, inWords, moment, path, told } from "./story.js";
import { putHandles, sayControls, sayStep, sayTime } from "./telling.js";
import { ASPECT, toyOf } from "./toys.js";

const SYNCED = ["loss", "k", "rho", "alpha", "adaptive", "steps", "t", "lens", "methods", "lr", "momentum", "start"];
const SETTLED_MS = 250, CALM_MS = 150, REHEARSALS = 8;
class Explorer {
  constructor(model, el, setup) {
    Object.assign(this, { model, setup, parts: {}, numbers: {}, known: new Map(), grounds: new Map(), runs: new Map(), made: {}, rehearsals: REHEARSALS, state: { ends: "", curve: "sharpness" }, tell: teller(model, SYNCED) });
    this.own = model.get("own");
    this.toys = [...(this.own.name ? [{ ...this.own, own: true }] : []), ...setup.losses];
    for (const name of SYNCED) this.state[name] = model.get(name);
    this.first = { ...this.state };
    if (model.address) Object.assign(this.state, this.fromAddress());
    this.root = Object.assign(document.createElement("div"), { className: "lb-explorer" });
    el.append(this.root);
    this.player = new Player(this);
    this.ends = new Ends(this);
    this.draw = oncePerFrame(() => this.drawNow());
    this.settle = later(() => this.settled(), SETTLED_MS);
    this.calm = later(() => this.rough && this.lens?.seen && this.drawLensUnder(this.now, this.lensAt, true), CALM_MS);
    build(this);
    this.theme = theme(this.root);
    for (const [pad, under] of [[this.map, this.under], [this.lens, this.lensUnder]]) if (pad) pad.under = under;
    this.watch();
    this.hash = toHash(this.state);
    this.layout();
  }

  shows(panel) { return this.model.get("panels").includes(panel); }

  fromAddress() {
    const { limits, methods } = this.setup;
    const found = fromHash(location.hash, { limits, methods, losses: this.toys.map(({ name }) => name) });
    const toy = found.loss && this.toys.find(({ name }) => name === found.loss);
    return toy ? { start: toy.start, lr: toy.lr, ...found } : found;
  }

  watch() {
    const changed = (name) => () => {
      this.state[name] = this.model.get(name);
      this.draw();
    };
    const heard = SYNCED.map((name) => [`change:${name}`, changed(name)]);
    heard.push(["change:drawn", () => this.draw()], ["change:error", () => this.draw()]);
    const themed = () => {
      this.theme = theme(this.root);
      this.warming = null;
      this.draw();
    };
    const unwatch = watch(this.model, this.root, heard, { sized: () => this.layout(), themed, zoomed: this.draw, waits: [this.settle, this.calm] });
    const scrolled = new IntersectionObserver((found) => this.look(found), { rootMargin: "40px" }), moved = () => this.set(this.fromAddress());
    for (const pad of this.pads()) scrolled.observe(pad.element);
    if (this.model.address) window.addEventListener("hashchange", moved);
    this.close = () => {
      unwatch();
      scrolled.disconnect();
      window.removeEventListener("hashchange", moved);
      this.player.stop();
      this.ends.basins.stop();
    };
  }

  set(changes) {
    Object.assign(this.state, changes);
    const { state } = this;
    state.t = between(state.t, 0, state.steps - 1);
    this.tell(state);
    this.draw();
  }

  toggle(method) {
    const shown = this.state.methods;
    this.set({ methods: this.setup.methods.filter((m) => (m === method ? !shown.includes(m) : shown.includes(m))) });
  }

  chooseLoss(loss) {
    const { start, lr } = this.toys.find(({ name }) => name === loss);
    this.set({ loss, start, lr });
  }

  reset() {
    this.player.stop();
    this.player.phase = Infinity;
    this.set({ ...this.first });
  }

  pads() { return [this.map, this.lens, this.time].filter(Boolean); }

  // What is scrolled out of sight is not drawn.
  look(found) {
    for (const { target, isIntersecting } of found) this.pads().find((pad) => pad.element === target).seen = isIntersecting;
    this.draw();
  }

  // ---- what is drawn ---------------------------------------------------------------------------

  get toy() {
    const given = this.toys.find(({ name }) => name === this.state.loss) ?? this.toys[0], grid = this.model.get("drawn").grid;
    if (this.made.given !== given || this.made.grid !== grid) this.made = { ...this.ready(given, grid), given, grid };
    return this.made.toy;
  }

  // A loss with its lowest and highest value; kept, as it takes longer than a frame.
  ready(given, grid) {
    const kept = this.known.get(given.name);
    if (kept && kept.grid === grid) return kept;
    const toy = toyOf(given, grid), made = { toy, grid, span: spanOf(toy.value, mapView(toy)) };
    this.known.set(given.name, made);
    return made;
  }

  setting(method, start = this.state.start) {
    const { k, rho, alpha, adaptive, lr, momentum, steps } = this.state, has = (axis) => this.setup.axes[method].includes(axis);
    return { method, k: has("k") ? k : 1, rho: has("rho") ? rho : 0, alpha: has("alpha") ? alpha : 1, adaptive: has("adaptive") && adaptive, gradient: "last", lr, momentum, start, steps, seed: 0, noise: this.toy.noise };
  }

  // The path of a method where the controls stand; null while the kernel has not sent it.
  run(method) {
    const { toy } = this, setting = this.setting(method), key = JSON.stringify(setting), id = `${toy.name}|${method}`, kept = this.runs.get(id);
    if (toy.kernel) {
      const sent = this.model.get("drawn").paths?.[method];
      return sent ? told(toy, { ...sent.setting, method }, sent, (_, i) => sent.sharp[i]) : null;
    }
    if (kept?.key === key) return kept.run;
    const run = path(toy, setting);
    this.runs.set(id, { key, run }); // of each loss: back and forth between two takes no time
    return run;
  }

  arrows() {
    const eye = this.run(this.eye());
    return eye ? arrowsOf(eye, this.state.t) : [];
  }

  // The method under the lens; without one, the first that is drawn.
  eye() {
    const { lens, methods } = this.state;
    return this.shows("lens") || this.state.ends || methods.includes(lens) || !methods.length ? lens : methods.at(-1);
  }

  scene() {
    const { state, toy, setup } = this, eye = this.run(this.eye()), runs = state.methods.map((m) => this.run(m)).filter(Boolean);
    const look = setup.palettes[this.theme.dark ? "dark" : "light"], empty = { slow: [state.start], sharp: [NaN], losses: [NaN], alpha: [], ascent: [], setting: this.setting(this.eye()), left: null };
    return { toy, runs, eye: eye ?? empty, waiting: !eye, t: state.t, start: state.start, rho: state.rho, ring: setup.axes[this.eye()].includes("rho"), colors: look.methods, roles: look.roles, theme: this.theme, span: this.made.span };
  }

  layout() {
    const { map, lens, time } = this, across = this.root.clientWidth;
    if (!across) return;
    this.theme = theme(this.root); // unknown before the page has it
    if (map) {
      const width = this.mapStage.clientWidth;
      map.fit(width, Math.round(ASPECT * width));
    }
    if (lens) lens.fit(this.lensStage.clientWidth, Math.round(between(this.lensStage.clientWidth * 0.58, 180, 240)));
    if (time) time.fit(time.element.parentElement.clientWidth, 116);
    this.size = across;
    this.draw();
  }

  // The ground changes with the loss, the size, the theme and the basins, and not with a path.
  drawUnder(basins) {
    const { under, map, made } = this, key = `${this.groundKey(made, !basins)}|${basins && this.ends.key}`;
    under.fit(map.width, map.height);
    if (this.underKey === key && under.grid === made.grid) return;
    this.underKey = key;
    under.grid = made.grid;
    if (made.toy.kernel) return drawUnder(under, made.toy, made.span, this.theme);
    const c = under.clear();
    c.imageSmoothingEnabled = false;
    for (const image of [basins, this.groundOf(made, !basins).element]) if (image) c.drawImage(image, 0, 0, map.width, map.height);
  }

  groundKey({ toy }, shades = true) {
    const { map, theme: { paperText, inkText } } = this;
    return [toy.name, map.width, map.ratio, paperText, inkText, shades].join("|");
  }

  groundOf(made, shades = true) {
    const key = this.groundKey(made, shades), { grounds, map } = this;
    if (!grounds.has(key)) {
      const pad = new Pad(document.createElement("canvas"));
      pad.fit(map.width, map.height);
      drawUnder(pad, made.toy, made.span, this.theme, shades);
      if (grounds.size > 16) grounds.clear();
      grounds.set(key, pad);
    }
    return grounds.get(key);
  }

  // While nobody asks for anything, make ready what a change of the loss would need, and rehearse:
  // a browser compiles only what has run a few times, and the first moves of a hand should not wait.
  warm() {
    const next = this.map && this.toys.find((given) => given.javascript && !this.grounds.has(this.groundKey({ toy: given })));
    if (!this.root.isConnected || (!next && !this.rehearsals)) return;
    if (next) this.groundOf(this.ready(next, this.made.grid));
    else this.rehearse();
    this.warming = setTimeout(() => this.warm(), 30);
  }

  rehearse() {
    this.rehearsals--;
    if (this.map && !this.toy.kernel) this.groundOf(this.made, false);
    this.runs.clear();
    this.lensKey = null;
    this.paint();
  }

  // Pictures first, words after: the first text on a canvas after a change of the page lays it all out.
  drawNow() {
    if (!this.size) return;
    this.paint();
    this.settle();
    if (!this.now.waiting) (window.__redraws ||= []).push(performance.now());
  }

  paint() {
    const scene = (this.now = this.scene()), { state, map, time } = this;
    if (map?.seen) this.drawUnder(this.ends.image());
    const where = map?.seen && drawMap(map, scene), step = this.drawLens(scene);
    if (time?.seen) this.timeAt = drawTime(time, scene, state.curve, state.steps);
    if (where) putHandles(this, where);
    if (time) sayTime(this, scene);
    if (step) sayStep(this, scene, step);
    sayControls(this, scene);
    this.spoken ??= this.momentNow(scene);
  }

  drawStep(scene = this.now ?? this.scene()) {
    const step = this.drawLens(scene);
    if (step) sayStep(this, scene, step);
  }

  drawLens(scene) {
    if (!this.lens?.seen || !this.size) return null;
    const arrows = arrowsOf(scene.eye, this.state.t), phase = Math.min(this.player.phase, arrows.length), view = arrows.length ? lensView(arrows, this.lens.width, this.lens.height) : null;
    this.drawLensUnder(scene, view);
    this.alphaLine = drawLens(this.lens, scene, view, arrows, phase);
    return { arrows, phase };
  }

  // Its contour lines wait until the hand rests: they take longer than a frame on a phone.
  drawLensUnder(scene, view, calm = false) {
    this.lensAt = view;
    const { lens, lensUnder } = this, key = view ? [scene.toy.name, ...Object.values(view), this.theme.paperText].join("|") : "";
    if (!view) lensUnder.clear();
    if (!calm) this.calm();
    if (!view || (key === this.lensKey && !(calm && this.rough))) return;
    lensUnder.fit(lens.width, lens.height);
    drawLensUnder(lensUnder, scene, view, calm);
    Object.assign(this, { lensKey: key, rough: !calm });
  }

  // ---- the controls, and words -----------------------------------------------------------------

  momentNow(scene) {
    const { state, toy } = this, error = this.model.get("error");
    if (error) return error;
    if (scene.waiting) return "The kernel draws this loss, a Python function: waiting for it.";
    if (state.ends && !toy.kernel) return this.ends.says;
    const away = scene.runs.find((run) => run.left !== null && run !== scene.eye);
    const other = away && scene.eye.left === null ? ` ${away.setting.method} left the map at step ${away.left}; ${advice(toy, away)}.` : "";
    return (toy.kernel ? "Drawn by the kernel, as this loss is a Python function. " : "") + moment(toy, scene.eye, state.t) + other;
  }

  // What need not follow the finger: words for a screen reader, the text of the picture, the address.
  settled() {
    this.warming ??= setTimeout(() => this.warm(), 30);
    const { state, toy, parts } = this, scene = this.now;
    say(parts.words, inWords(toy, { start: state.start, steps: state.steps }, scene.runs));
    const says = this.momentNow(scene);
    if (this.spoken !== says && !this.player.playing) say(parts.live, says);
    this.spoken = says;
    if (!this.model.address) return;
    const hash = toHash(state);
    if (hash !== this.hash) history.replaceState(null, "", hash);
    this.hash = hash;
  }

  async copyPython() {
    await copy(python(this.state, this.toy));
    this.note("Copied.");
  }

  async savePicture() {
    const title = `${this.toy.name}: k = ${this.state.k}, ρ = ${words(this.state.rho)}, α = ${this.state.adaptive ? "adaptive" : words(this.state.alpha)}, learning rate ${words(this.state.lr)}, ${this.state.steps} steps`;
    for (const pad of this.pads()) pad.seen = true;
    this.drawNow();
    download(await sheet(this.pads(), title, this.theme), `lookbehind-${this.toy.name.replace(/\W+/g, "-")}.png`);
    this.note("Saved.");
  }

  note(text) {
    say(this.parts.done, text);
    say(this.parts.live, text);
  }
}

function render({ model, el }) {
  const explorer = new Explorer(model, el, SETUP);
  return () => explorer.close();
}

export { still };
export default { render };
