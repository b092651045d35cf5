// The landscape explorer: its state, and what is drawn when it changes. Planes and climbs come from
// the kernel; a climb for every k and ρ is in a table, so that a move of them needs none.

import { later, mark, oncePerFrame, put, say, still, teller, theme, watch } from "../shared/controls.js";
import { between, words } from "../shared/drawing.js";
import { hands, hideTip, read, showTip } from "./hand.js";
import { build, planeInWords, showChips, showSays } from "./layout.js";
import { arrange, drawGrip, drawOver, drawProbe, drawUnder, profileOf, titleOf } from "./panels.js";
import { gridOf, prepared, scaleOf } from "./scale.js";
import { Surface, eyeOf } from "./surface.js";

const SYNCED = ["first", "second", "half", "points", "statistics", "shown", "quantity", "mode", "k", "rho", "layers"];
const HEARD = ["names", "directions", "message", "progress", "running"];
const SETTLED_MS = 250, CALM_MS = 120, LOWEST = 0.05; // LOWEST: of the eye, in radians

class Landscape {
  constructor(model, el, setup) {
    Object.assign(this, { model, setup, alive: Boolean(model.send), parts: {}, numbers: {}, surfaces: new Map(), grids: new WeakMap(), state: {}, azimuth: 0.6, elevation: 0.55, probe: [0, 0], spots: [], tell: teller(model, SYNCED) });
    for (const name of SYNCED) this.state[name] = model.get(name);
    this.root = Object.assign(document.createElement("div"), { className: "lb-explorer" });
    el.append(this.root);
    this.draw = oncePerFrame(() => this.drawNow());
    this.settle = later(() => this.settled(), SETTLED_MS);
    this.calm = later(() => this.fresh(), CALM_MS);
    build(this);
    hands(this);
    this.watch();
    this.layout();
  }

  watch() {
    const heard = SYNCED.map((name) => [`change:${name}`, () => this.set({ [name]: this.model.get(name) })]), layout = () => this.layout();
    heard.push(...HEARD.map((name) => [`change:${name}`, this.draw]), ["change:scene", () => this.fresh()], ["change:climbs", () => this.again()]);
    const sized = () => this.stage.clientWidth !== this.across && this.layout();
    this.close = watch(this.model, this.root, heard, { sized, themed: layout, zoomed: layout, waits: [this.settle, this.calm] });
  }

  set(changes) {
    Object.assign(this.state, changes);
    this.tell(changes);
    "quantity" in changes || "mode" in changes || "shown" in changes ? this.fresh() : this.again();
  }

  // Draw what lies on the planes; the scale of a profile depends on it.
  again() { this.state.mode === "profile" ? this.fresh() : this.draw(); }

  // Draw all, or what turns; a new view has no tooltip of the old one.
  fresh(rough = false) {
    Object.assign(this, { made: null, rough });
    hideTip(this);
    this.draw();
  }

  toggle(name) {
    const { shown } = this.state, after = this.model.get("names").filter((n) => (n === name ? !shown.includes(n) : shown.includes(n)));
    if (after.length) this.set({ shown: after });
  }

  toggleLayer(name) {
    const { layers } = this.state;
    this.set({ layers: layers.includes(name) ? layers.filter((n) => n !== name) : [...layers, name] });
  }

  turn(azimuth, elevation) {
    Object.assign(this, { azimuth, elevation: between(elevation, LOWEST, Math.PI / 2) });
    this.fresh(true);
    this.calm();
  }

  showProbe(on) {
    this.probing = on;
    if (!on) hideTip(this);
    this.draw();
  }

  // By the points of the plane.
  moveProbe(dx, dy) {
    const net = this.scene.nets.find(({ plane }) => plane), step = net ? 2 / (net.plane.a.length - 1) : 0.1;
    this.probe = [dx, dy].map((d, i) => between(Math.round((this.probe[i] + d * step) / step) * step, -1, 1));
    this.draw();
  }

  layout() {
    const { clientWidth } = this.stage;
    if (!clientWidth) return;
    Object.assign(this, { across: clientWidth, theme: theme(this.root) });
    this.fresh();
  }

  // ---- what is drawn ---------------------------------------------------------------------------

  // The networks that are drawn, as the kernel sent them last.
  networks() {
    const sent = this.model.get("scene").networks ?? [];
    if (this.sent !== sent) Object.assign(this, { sent, prepared: sent.map(prepared), scaled: null });
    return this.prepared.filter(({ name }) => this.state.shown.includes(name));
  }

  // A method's own colour where it is free.
  colorsOf(methods) {
    const free = Object.keys(methods), colors = {}, own = (name) => free.filter((m) => name.startsWith(m)).sort((a, b) => b.length - a.length)[0];
    const names = this.model.get("names"), first = names.filter(own);
    for (const name of [...first, ...names.filter((n) => !first.includes(n))]) {
      const [chosen] = free.splice(Math.max(free.indexOf(own(name)), 0), 1);
      colors[name] = methods[chosen ?? Object.keys(methods)[0]];
    }
    return colors;
  }

  climb(net) { return (this.model.get("climbs")[net.name] ?? {})[String(this.state.rho)]?.slice(0, this.state.k + 1); }

  // Kept while only the eye moves.
  scaleOf(nets) {
    const { quantity, shown } = this.state, key = [quantity, ...shown].join("\n");
    if (this.scaled?.key !== key) this.scaled = { key, scale: scaleOf(nets, quantity) };
    return this.scaled.scale;
  }

  gridOf(net, scale) {
    const { quantity } = this.state, kept = this.grids.get(net);
    if (kept?.scale === scale) return kept.grid;
    const grid = gridOf(net, quantity, scale);
    this.grids.set(net, { scale, grid });
    return grid;
  }

  // All that a change of the view makes anew.
  view() {
    const { state } = this, nets = this.networks(), look = this.setup.palettes[this.theme.dark ? "dark" : "light"];
    const { boxes, height } = arrange(nets, this.across, state.mode), solid = state.mode === "surface", half = this.model.get("scene").half ?? state.half;
    const scale = this.scaleOf(nets), eye = eyeOf(solid, this.azimuth, this.elevation);
    this.height = height;
    const base = { nets, half, scale, solid, eye, theme: this.theme, roles: look.roles, colors: this.colorsOf(look.methods), climb: (net) => this.climb(net) };
    if (state.mode === "profile") return { ...base, ...profileOf({ ...state, ...base }, boxes[0]), panels: [{ profile: true, box: boxes[0] }] };
    return { ...base, panels: nets.map((net, i) => this.panel(net, boxes[i], base)) };
  }

  // A surface is made of four pixels a pixel once it rests: its rim is smooth then.
  panel(net, box, { eye, solid, scale }) {
    if (!net.plane) return { net, box };
    const ratio = this.rough ? 1 : between((window.devicePixelRatio || 1) * (solid ? 2 : 1), 1, 2), grid = this.gridOf(net, scale);
    if (!this.surfaces.has(net.name)) this.surfaces.set(net.name, new Surface());
    const surface = this.surfaces.get(net.name);
    surface.fit(Math.round(box.size * ratio));
    surface.draw(grid, eye, solid);
    return { net, box, eye, grid, surface };
  }

  drawNow() {
    if (!this.across) return;
    if (!this.made) {
      this.made = this.view();
      for (const pad of [this.under, this.over]) pad.fit(this.across, this.height);
      if (!this.rough) drawUnder(this.under.clear(), { ...this.state, ...this.made }, this.across);
    }
    const scene = (this.scene = { ...this.state, ...this.made }), c = this.over.clear(), { spots, grip } = drawOver(c, scene);
    this.spots = spots;
    if (grip) drawGrip(c, grip, scene);
    const cross = this.probing && drawProbe(c, scene, this.probe).find(Boolean);
    this.handles(scene, grip, cross);
    this.controls(scene);
    showTip(this, cross);
    this.settle();
    (window.__redraws ||= []).push(performance.now());
  }

  handles(scene, grip, cross) {
    const { state, setup: { radii }, probe } = this, box = scene.panels[0]?.box, there = scene.nets.some(({ plane }) => plane);
    this.gripHandle.put(grip, { "aria-valuenow": state.rho, "aria-valuemin": radii[0], "aria-valuemax": radii.at(-1), "aria-valuetext": `ρ = ${words(state.rho)}` });
    const rest = there ? [box.x + (box.wide ?? box.size) / 2, box.y + (box.tall ?? box.size) / 2] : null;
    this.probeHandle.put(cross || rest, { "aria-valuenow": +(probe[0] * scene.half).toPrecision(3), "aria-valuemin": -scene.half, "aria-valuemax": scene.half, "aria-valuetext": read(scene, probe).join(". ") });
  }

  // ---- the controls, and words -----------------------------------------------------------------

  controls(scene) {
    const { state, parts, model } = this;
    for (const role in scene.roles) put(this.root, `--lb-${role}`, scene.roles[role]);
    for (const control of Object.values(this.numbers)) control.update();
    showChips(this, model.get("names"));
    for (const [name, { chip, data }] of Object.entries(parts.networks)) {
      const start = this.prepared.find((net) => net.name === name)?.start;
      mark(chip, { "aria-pressed": state.shown.includes(name) });
      put(chip, "color", scene.colors[name]);
      say(data, start ? ` loss ${words(start[0] ?? NaN, 2)}` : "");
    }
    for (const mode in parts.views) mark(parts.views[mode], { "aria-pressed": mode === state.mode });
    for (const layer in parts.layers) mark(parts.layers[layer], { "aria-pressed": state.layers.includes(layer) });
    put(parts.layers.path, "disabled", !scene.nets.some((net) => net.path.length));
    put(parts.quantity.select, "value", state.quantity);
    put(parts.eye, "hidden", !scene.solid);
    put(this.over.element, "className", `lb-over${scene.solid ? " lb-turning" : ""}`);
    mark(this.over.element, { "aria-label": `${titleOf({ ...scene, scale: scene.own ?? scene.scale })}, around ${scene.nets.map(({ name }) => name).join(", ") || "no network yet"}` });
    this.alive ? this.kernelControls() : say(parts.plane, planeInWords(state));
    showSays(parts.says, scene.nets.map((net) => [scene.colors[net.name], this.caption(net)]));
  }

  kernelControls() {
    const { state, parts, model } = this, offered = model.get("directions").join("\n");
    if (parts.offered !== offered) for (const trait of ["first", "second"]) parts[trait].offer(model.get("directions").map((d) => [d, d]));
    parts.offered = offered;
    for (const trait of ["first", "second", "points", "statistics"]) parts[trait].select.value = state[trait];
    say(parts.message, model.get("message"));
    for (const part of ["progress", "stop"]) put(parts[part], "hidden", !model.get("running"));
    put(parts.progress, "value", model.get("progress"));
  }

  caption(net) {
    const { k, rho, layers } = this.state, climb = this.climb(net), last = climb?.at(-1), parts = [], told = (v) => words(v ?? NaN);
    if (layers.includes("climb") && !last) parts.push(`the climb at ρ = ${rho} is not computed yet`);
    else if (layers.includes("climb")) parts.push(`${k} ascent step${k > 1 ? "s" : ""} of ρ = ${rho}: loss ${told(climb[0][2])} → ${told(last[2])}, accuracy ${told(climb[0][3])} → ${told(last[3])}, at a distance of ${words(last[5])}, ${words(last[4])} off the plane`);
    if (layers.includes("path") && net.path.length) parts.push(`Training path: the plane holds ${words(100 * net.explained)} % of its squared distances`);
    return `${net.name}: ${parts.join(". ") || `loss ${told(net.start[0])}`}.`;
  }

  // What need not follow the finger: words for a screen reader, the text of the picture.
  settled() {
    const { nets, scale, half } = this.scene, { parts, state } = this, says = nets.map((net) => this.caption(net)).join(" ");
    const range = (net) => `${net.name}: loss ${words(net.start[0] ?? NaN)} at the network, on the plane from ${words(net.lowest)} to ${words(net.highest)}; a is ${net.labels[0]}, b ${net.labels[1]}.`;
    const all = `${titleOf({ quantity: state.quantity, scale })}, from ${words(scale.low)} to ${words(scale.high)} for all networks together, within ±${words(half)}.`;
    say(parts.words, nets.length ? [all, ...nets.filter((net) => net.line).map(range), says].join(" ") : "Nothing is computed yet.");
    if (this.spoken !== undefined && this.spoken !== says) say(parts.live, says);
    this.spoken = says;
  }
}

function render({ model, el }) {
  const landscape = new Landscape(model, el, SETUP);
  if (landscape.alive) model.send({ kind: "ready" });
  return () => landscape.close();
}

export { still };
export default { render };
