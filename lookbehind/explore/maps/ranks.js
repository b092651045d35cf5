// One outer step of several ranks: their gradients, the mean of these, and the climb of each.

import { dot } from "../shared/canvas.js";
import { Handle, Scrubbed, stepWord, still } from "../shared/controls.js";
import { Labels, arrow, between, drawGround, project, spanOf, unproject, words } from "../shared/drawing.js";
import { write } from "../shared/plot.js";
import { Sheet, renders } from "../shared/sheet.js";

const NARROW = 640, REACH = 2.2, TOP = 24, SHAPE = 0.82;
const add = ([x, y], [u, v], s = 1) => [x + s * u, y + s * v], size = ([x, y]) => Math.hypot(x, y);
const distance = (a, b) => size(add(a, b, -1)), cents = (x) => Math.round(100 * x) / 100;

const mean = (images, of) => images.reduce((sum, z) => sum + of(z), 0) / images.length;
const softplus = (t) => Math.max(t, 0) + Math.log1p(Math.exp(-Math.abs(t)));
const loss = (images, x, y) => mean(images, ([a, b]) => softplus(-a * x - b * y));
const gradient = (images, [x, y]) => [0, 1].map((j) => mean(images, (z) => -z[j] / (1 + Math.exp(z[0] * x + z[1] * y))));

// The images of each rank: the last parts of a whole cut at the nearest images.
function groupsOf(images, ranks, shares) {
  const parts = Array.from({ length: ranks }, (_, r) => (shares === "growing" ? r + 1 : shares === "equal" || r ? 1 : Math.max(ranks - 1, 1)));
  const whole = parts.reduce((a, b) => a + b), ends = parts.map((_, r) => Math.floor((images.length * parts.slice(0, r + 1).reduce((a, b) => a + b)) / whole + 0.5));
  return ends.map((end, r) => images.slice(r ? ends[r - 1] : 0, end));
}

// At each of the k + 1 gradients: where the ranks stand, their gradients, the mean, the fast weights.
function stepOf(groups, { k, rho, slow, climb, mean: kind }, lr, alpha) {
  const sizes = groups.map((group) => (kind === "weighted" ? group.length : 1)), whole = sizes.reduce((a, b) => a + b), moments = [];
  let points = groups.map(() => slow), fast = slow;
  for (let i = 0; i <= k; i++) {
    const own = groups.map((group, r) => gradient(group, points[r])), sum = own.reduce((g, one, r) => add(g, one, sizes[r] / whole), [0, 0]);
    if (i) fast = add(fast, sum, -lr);
    moments.push({ points, own, sum, fast });
    points = points.map((p, r) => (i || climb === "global" ? add(p, sum, rho / size(sum)) : add(p, own[r], rho / size(own[r]))));
  }
  return { moments, end: add(slow, add(fast, slow, -1), alpha) };
}

class Ranks extends Sheet {
  constructor(model, el) { super(model, el, ["ranks", "shares", "climb", "mean", "k", "rho", "slow"], "gradients of the step"); }

  build() {
    const [choices, images] = ["choices", "images"].map((name) => this.model.get(name)), say = (text) => this.head.append(text);
    const pick = (text, name) => this.menu(text, choices[name], () => choices[name].indexOf(this.state[name]), (i) => this.set({ [name]: choices[name][i] }));
    const scrub = (name, says, low, high, step = 1, after) => this.controls.push(new Scrubbed(this.head, { name: says, after, low, high, step, digits: step < 1 ? 1 : 0, pixels: 20, get: () => this.state[name], set: (value) => this.set({ [name]: value }) }));
    this.images = images;
    say(`Split ${images.length} images over R = `);
    scrub("ranks", "R, ranks", 1, 8);
    pick(" in shares: ", "shares");
    pick("; take the mean: ", "mean");
    say("; climb k = ");
    scrub("k", "k, climbing steps", 1, 5, 1, stepWord);
    say(" of ρ = ");
    scrub("rho", "ρ, reach of a climbing step", 0.1, 1, 0.1);
    pick(" each, the first: ", "climb");
    say("; show gradient ");
    this.at = this.number({ name: "gradient shown", values: this.places(), get: () => this.now, set: (i) => this.go(i) });
    this.stage.className = "lb-stage";
    const move = (slow) => this.set({ slow: slow.map((v) => cents(between(v, -REACH, REACH))) });
    this.handle = new Handle(this.stage, { name: "φ, the slow weights", move: (at) => move(unproject(this.view, at)), key: (x, y) => move(add(this.state.slow, [x, y], 0.1)) });
  }

  places() { return Array.from({ length: this.state.k + 1 }, (_, i) => `${i}`); }

  get view() {
    const width = this.width < NARROW ? this.width : Math.round(this.width * 0.58), height = Math.round(width * SHAPE);
    return { x0: -REACH, x1: REACH, y0: -REACH * SHAPE, y1: REACH * SHAPE, width, height };
  }

  heightAt(width) { return this.view.height + (width < NARROW ? Math.round(width * 0.8) : 0); }

  compute() {
    const { ranks, shares, k } = this.state, run = (groups) => stepOf(groups, this.state, this.model.get("lr"), this.model.get("alpha"));
    if (this.at.values.length !== k + 1) this.at.list(this.places());
    this.now = Math.min(this.now, k);
    this.groups = groupsOf(this.images, ranks, shares);
    Object.assign(this, run(this.groups), { alone: run([this.images]).end });
  }

  paint(c, width) {
    this.compute();
    const { view } = this, value = (x, y) => loss(this.images, x, y), beside = width >= NARROW;
    this.roles = PALETTES[this.theme.dark ? "dark" : "light"].roles;
    c.save();
    c.beginPath();
    c.rect(0, 0, view.width, view.height);
    c.clip();
    drawGround(c, value, view, (this.span ||= spanOf(value, view)), this.theme);
    this.map(c, view, new Labels(c, view.width, view.height, this.theme.paperText));
    c.restore();
    this.rose(c, beside ? { x: view.width + 16, y: 0, width: width - view.width - 16, height: view.height } : { x: 0, y: view.height + 8, width, height: width * 0.8 - 8 });
    this.handle.put(project(view, this.state.slow), { "aria-valuetext": this.state.slow.map((v) => words(v)).join(", "), "aria-valuenow": this.state.slow[0], "aria-valuemin": -REACH, "aria-valuemax": REACH });
  }

  map(c, view, labels) {
    const { roles, now, theme: { inkText } } = this, at = (p) => project(view, p), { k, slow, ranks, climb } = this.state, apart = climb === "local" && ranks > 1;
    this.moments.slice(1, now + 1).forEach(({ points, fast }, i) => {
      points.slice(0, apart ? ranks : 1).forEach((p, r) => arrow(c, at(this.moments[i].points[r]), at(p), roles.ascent));
      arrow(c, at(this.moments[i].fast), at(fast), roles.descent);
    });
    const { points, fast } = this.moments[now];
    if (now === k) arrow(c, at(slow), at(this.end), roles.interpolation, 4);
    dot(c, at(slow), 5, inkText);
    dot(c, at(this.alone), 7, null, inkText);
    labels.put("φ", at(slow), inkText, { size: 15 });
    if (now) labels.put("fast", at(fast), roles.descent);
    if (now === k) labels.put("new φ", at(this.end), roles.interpolation);
    labels.put("one process", at(this.alone), inkText, { weight: 400, sides: [[-1, 1], [0, 1], [1, 1], [0, -1]] });
    if (now) points.slice(0, apart ? ranks : 1).forEach((p, r) => labels.put(apart ? `${r}` : ranks > 1 ? "all ranks" : "rank 0", at(p), roles.ascent));
  }

  rose(c, { x, y, width, height }) {
    const { own, sum } = this.moments[this.now], { inkText, paperText } = this.theme, color = this.roles.gradient, labels = new Labels(c, x + width, y + height, paperText);
    const longest = Math.max(...this.moments.flatMap((moment) => moment.own.map(size))), scale = (0.42 * Math.min(width, height - TOP)) / longest, o = [x + width / 2, y + TOP + (height - TOP) / 2];
    const tip = ([u, v]) => [o[0] + scale * u, o[1] - scale * v];
    write(c, `gradient ${this.now}: ranks and mean`, x, y + 12, inkText, "left", 600);
    own.forEach((g) => arrow(c, o, tip(g), color, 1.5));
    arrow(c, o, tip(sum), color, 4.5);
    dot(c, o, 3, inkText);
    const out = ([u, v]) => ({ sides: [[Math.sign(u), -Math.sign(v)], [Math.sign(u), 0], [0, -Math.sign(v)], [-Math.sign(u), -Math.sign(v)], [Math.sign(u), Math.sign(v)], [Math.sign(u), -2 * Math.sign(v)]] });
    labels.put("mean", tip(sum), inkText, out(sum));
    if (own.length > 1) own.forEach((g, r) => labels.put(`rank ${r}`, tip(g), color, { weight: 400, ...out(g) }));
  }

  told() {
    const { ranks, climb, k } = this.state, i = this.now, { own, sum } = this.moments[i], lengths = own.map(size), mean = lengths.reduce((a, g, r) => a + (g * this.groups[r].length) / this.images.length, 0);
    const waits = climb === "local" && !i, use = waits ? "not exchanged: each rank climbs by its own" : `exchanged: all ${[i && "descend", i < k && "climb"].filter(Boolean).join(" and ")} by the mean`;
    const text = `Gradient ${i} of 0 to ${k}, ${i ? `after ascent ${i}` : "at φ"}, ${use}. Length of the mean ${words(size(sum))}, mean length ${words(mean)}.`;
    const gap = distance(this.end, this.alone);
    return [text, `Images by rank: ${this.groups.map((group) => group.length).join(", ")}. ${k + (climb === "global" ? 1 : 0)} exchanges a step; with ${ranks} rank${ranks > 1 ? "s" : ""} it ends ${gap < 1e-12 ? "where" : `${words(gap, 2)} from where`} one process ends.`];
  }

  count() { return this.state.k + 1; }

  step(right, down) { return this.now + right - down; }

  point() { return null; }
}

const render = renders(Ranks);
export { still };
export default { render };
