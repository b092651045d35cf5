// The toy explorer: its state, and what is drawn when it changes. No kernel computes anything here,
// except for a loss that is a Python function.

import { copy, download, later, mark, oncePerFrame, onTheme, put, say, theme } from "../shared/controls.js";
import { Pad, between, spanOf, words } from "../shared/drawing.js";
import { still } from "../shared/still.js";
import { Ends } from "./ends.js";
import { build, showFormulas } from "./layout.js";
import { fromHash, python, sheet, toHash } from "./links.js";
import { drawLens, drawLensUnder, drawMap, drawTime, drawUnder, lensView, mapView } from "./pictures.js";
import { Player } from "./player.js";
import { advice, arrowsOf, caption, ending, formulas, inWords, moment, path, told } from "./story.js";
import { ASPECT, toyOf } from "./toys.js";

const SYNCED = ["loss", "k", "rho", "alpha", "adaptive", "steps", "t", "lens", "methods", "lr", "momentum", "start"];
const SAVE_EVERY_MS = 60, SETTLED_MS = 250, CALM_MS = 150;
class Explorer {
  constructor(model, el, setup) {
    Object.assign(this, { model, setup, parts: {}, numbers: {}, known: new Map(), grounds: new Map(), runs: new Map(), made: {}, state: { ends: "", curve: "sharpness" } });
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
    for (const [event, act] of heard) this.model.on(event, act);
    const sized = new ResizeObserver(() => this.layout()), moved = () => this.set(this.fromAddress());
    sized.observe(this.root);
    const scrolled = new IntersectionObserver((found) => this.look(found), { rootMargin: "40px" });
    for (const pad of this.pads()) scrolled.observe(pad.element);
    const unthemed = onTheme(() => {
      this.theme = theme(this.root);
      this.warming = null;
      this.draw();
    });
    window.addEventListener("resize", this.draw); // a zoom changes the pixels of an element of one size
    if (this.model.address) window.addEventListener("hashchange", moved);
    this.close = () => {
      for (const [event, act] of heard) this.model.off(event, act);
      sized.disconnect();
      scrolled.disconnect();
      unthemed();
      window.removeEventListener("resize", this.draw);
      window.removeEventListener("hashchange", moved);
      this.player.stop();
      this.ends.basins.stop();
    };
  }

  set(changes) {
    Object.assign(this.state, changes);
    const { state } = this;
    state.t = between(state.t, 0, state.steps - 1);
    for (const name of SYNCED) if (this.model.get(name) !== state[name]) this.model.set(name, state[name]);
    this.saving ||= setTimeout(() => {
      this.saving = null;
      this.model.save_changes();
    }, SAVE_EVERY_MS);
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
    if (this.made.given !== given || this.made.grid !== grid) {
      this.made = { ...this.ready(given, grid), given, grid };
      this.runs.clear();
    }
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
    const { toy } = this, setting = this.setting(method), key = JSON.stringify(setting), kept = this.runs.get(method);
    if (toy.kernel) {
      const sent = this.model.get("drawn").paths?.[method];
      return sent ? told(toy, { ...sent.setting, method }, sent, (_, i) => sent.sharp[i]) : null;
    }
    if (kept?.key === key) return kept.run;
    const run = path(toy, setting);
    this.runs.set(method, { key, run });
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
    const { under, map, made } = this, key = this.groundKey(made, basins);
    under.fit(map.width, map.height);
    if (this.underKey === key && under.grid === made.grid) return;
    Object.assign(this, { underKey: key });
    under.grid = made.grid;
    if (basins || made.toy.kernel) drawUnder(under, made.toy, made.span, this.theme, basins);
    else under.clear().drawImage(this.groundOf(made).element, 0, 0, map.width, map.height);
  }

  groundKey({ toy }, basins) {
    const { map, theme: { paperText, inkText } } = this;
    return [toy.name, map.width, map.ratio, paperText, inkText, basins && this.ends.key].join("|");
  }

  groundOf(made) {
    const key = this.groundKey(made), { grounds, map } = this;
    if (!grounds.has(key)) {
      const pad = new Pad(document.createElement("canvas"));
      pad.fit(map.width, map.height);
      drawUnder(pad, made.toy, made.span, this.theme);
      if (grounds.size > 8) grounds.clear();
      grounds.set(key, pad);
    }
    return grounds.get(key);
  }

  // While nobody asks for anything, make ready what a change of the loss would need.
  warm() {
    const next = this.map && this.toys.find((given) => given.javascript && !this.grounds.has(this.groundKey({ toy: given })));
    if (!next || !this.root.isConnected) return;
    this.groundOf(this.ready(next, this.made.grid));
    this.warming = setTimeout(() => this.warm(), 30);
  }

  drawNow() {
    if (!this.size) return;
    const scene = (this.now = this.scene()), { state, toy } = this;
    if (this.map?.seen) {
      this.drawUnder(this.ends.image());
      const where = drawMap(this.map, scene);
      this.startHandle.put(where.start, { "aria-valuenow": words(state.start[0]), "aria-valuetext": `x ${words(state.start[0])}, y ${words(state.start[1])}` });
      this.ringHandle.put(where.grip, { "aria-valuenow": +state.rho.toFixed(4), "aria-valuemin": 0, "aria-valuemax": this.setup.limits.rho[1], "aria-valuetext": `ρ = ${words(state.rho)}` });
    }
    if (this.time) {
      if (this.time.seen) this.timeAt = drawTime(this.time, scene, state.curve, state.steps);
      const at = between(state.t, 0, scene.eye.slow.length - 1), says = `outer step ${state.t} of ${state.steps}, λ ${words(scene.eye.sharp[at])}, loss ${words(scene.eye.losses[at])}`;
      mark(this.time.element, { "aria-valuenow": state.t, "aria-valuemax": state.steps - 1, "aria-valuetext": says });
      say(this.parts.timeSays, says);
    }
    this.drawStep(scene);
    this.controls(scene);
    this.spoken ??= this.momentNow(scene);
    this.settle();
    if (!scene.waiting) (window.__redraws ||= []).push(performance.now());
  }

  drawStep(scene = this.now ?? this.scene()) {
    if (!this.lens?.seen || !this.size) return;
    const arrows = arrowsOf(scene.eye, this.state.t), phase = Math.min(this.player.phase, arrows.length), { parts } = this, on = arrows[Math.max(Math.ceil(phase) - 1, 0)];
    const moving = phase < arrows.length || this.player.playing, view = arrows.length ? lensView(arrows, this.lens.width, this.lens.height) : null;
    this.drawLensUnder(scene, view);
    const line = drawLens(this.lens, scene, view, arrows, phase);
    this.alphaLine = line;
    const way = this.setup.axes[this.eye()].includes("alpha") && line && !moving, alpha = line && arrows.at(-1).alpha;
    this.alphaHandle.put(way ? line.at : null, { "aria-valuenow": +(alpha || 0).toFixed(4), "aria-valuemin": 0, "aria-valuemax": 1, "aria-valuetext": `α = ${words(alpha || 0, 2)}` });
    say(parts.lensCaption, !arrows.length ? (scene.waiting ? "" : moment(scene.toy, scene.eye, this.state.t)) : phase === 0 ? `At the slow weights φ, step ${this.state.t}.` : !moving ? "Climb, descend, interpolate: press Play or Step." : caption(scene.toy, on));
    say(parts.play, this.player.playing ? "Pause" : "▶ Play");
    mark(parts.scrub, { max: Math.max(arrows.length, 1), "aria-valuetext": arrows.length ? caption(scene.toy, on) : "" });
    put(parts.scrub, "value", phase);
    showFormulas(parts.formulas, formulas(this.eye(), this.state.momentum), moving && phase > 0 ? on?.kind : null);
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

  controls(scene) {
    const { state, parts, toy, setup } = this, used = [...new Set([...state.methods, this.eye()])], moves = (axis) => used.some((m) => setup.axes[m].includes(axis));
    for (const [name, control] of Object.entries(this.numbers)) control.update(["k", "rho", "alpha"].includes(name) && !moves(name));
    const look = scene.colors;
    for (const role in scene.roles) put(this.root, `--lb-${role}`, scene.roles[role]);
    for (const { method, chip, data } of parts.chips) {
      const run = state.methods.includes(method) ? this.run(method) : null, end = run && ending(run);
      mark(chip, { "aria-pressed": state.methods.includes(method) });
      put(chip, "color", look[method]);
      say(data, end ? [end.sharp && `λ ${end.sharp}`, end.short, `${end.gradients} gradients`].filter(Boolean).join(" · ") : "");
    }
    if (parts.lensOf) put(parts.lensOf, "value", state.lens);
    if (parts.curve) put(parts.curve, "value", state.curve);
    put(parts.loss, "value", toy.name);
    say(parts.formula, `L = ${toy.formula}`);
    say(parts.lesson, toy.lesson);
    if (!this.map) return;
    mark(parts.ends, { "aria-pressed": Boolean(state.ends) });
    put(parts.ends, "hidden", toy.kernel);
    put(parts.endsBox, "hidden", !state.ends || toy.kernel);
    put(parts.endsBy, "value", state.ends || "place");
    put(parts.endsOf, "value", this.eye());
    say(parts.caption, this.momentNow(scene));
  }

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
