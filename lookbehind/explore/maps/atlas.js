// The training atlas: stored runs under k, ρ, α, learning rate and labels.

import { line } from "../shared/canvas.js";
import { element, stepWord, still } from "../shared/controls.js";
import { Labels, between, words } from "../shared/drawing.js";
import { ground, interval, near, write } from "../shared/plot.js";
import { Sheet, renders } from "../shared/sheet.js";

const ROW = 22, TOP = 26, FOOT = 28, NARROW = 640, ACCURACY = 150, LOSS = 86, LEFT = 38, CHANCE = 20;
const CURVES = 2 * TOP + 2 * FOOT + ACCURACY + LOSS, STRIP = TOP + FOOT + 3 * ROW;
const at = (row, name) => row[name] && { mean: row[name][0], std: row[name][1] };

class Atlas extends Sheet {
  constructor(model, el) { super(model, el, ["setting"], "epoch of the curves"); }

  build() {
    const { axes, runs, common, noise } = (this.atlas = this.model.get("atlas"));
    this.now = common.epochs - 1;
    this.strips = [
      ["test accuracy at the end, %", (row) => row.accuracy && { mean: row.accuracy.at(-1), std: row.spread.at(-1) }],
      [`with noisy weights (level ${noise}), %`, (row) => at(row, "noisy")],
      ["worst rise of the loss, nats / 1000", (row) => at(row, "rise")],
    ];
    const place = (name) => ({ get: () => axes[name].indexOf(this.state.setting[name]), set: (i) => this.set({ setting: { ...this.state.setting, [name]: axes[name][i] } }) });
    const scrub = (text, name, says, after) => this.head.append(text) || this.number({ name: says, after, values: axes[name].map(String), ...place(name) });
    const pick = (text, name, say) => this.menu(text, axes[name].map(say), place(name).get, place(name).set);
    scrub("Climb ", "k", "k, climbing steps", stepWord);
    scrub(" of ρ = ", "rho", "ρ, reach of a climbing step");
    scrub(" each, and go α = ", "alpha", "α, share of the way");
    this.head.append(" of the way; ");
    pick("learning rate", "lr", String);
    this.head.append(" ");
    pick("training labels", "label_noise", (share) => (share ? `${100 * share} % wrong` : "clean"));
    const box = element("details", this.root), count = runs.length * this.atlas.seeds.length;
    element("summary", box, { textContent: "What is stored here" });
    element("p", box, { textContent: this.stored(count) });
  }

  stored(count) {
    const { axes, common, seeds, command, commit, torch, hardware, radius } = this.atlas;
    return `${count} runs: ${common.method} on ${common.dataset}, ${common.model}, ${common.epochs} epochs, momentum ${common.momentum}, every combination of ` +
      `${Object.entries(axes).map(([name, values]) => `${name} (${values.join(", ")})`).join(", ")}, seeds ${seeds.join(", ")}. A curve, a dot: mean over the seeds, a band or line ± their standard deviation. ` +
      `Worst rise: in one step of ${radius} on the training images. Made by ${command} at commit ${commit}, torch ${torch}, ${hardware}.`;
  }

  row(changes = {}) {
    const setting = { ...this.state.setting, ...changes };
    return this.atlas.runs[Object.entries(this.atlas.axes).reduce((n, [name, values]) => n * values.length + values.indexOf(setting[name]), 0)];
  }

  lines() {
    const all = [["Lookbehind-SAM", "this setting", {}], ["SAM", "SAM, same ρ", { k: 1, alpha: 1 }], ["SGD", "SGD", { k: 1, alpha: 1, rho: 0 }]];
    return all.map(([method, label, changes]) => ({ label, color: this.color(method), row: this.row(changes) })).filter((one, i, some) => some.findIndex(({ row }) => row === one.row) === i);
  }

  // All settings with this learning rate and these labels; kept, as they are asked for in each frame.
  get others() {
    const { axes: { k, rho, alpha } } = this.atlas, { lr, label_noise } = this.state.setting, key = `${lr} ${label_noise}`;
    if (this.known !== key) Object.assign(this, { known: key, all: k.flatMap((k) => rho.flatMap((rho) => alpha.map((alpha) => this.row({ k, rho, alpha })))) });
    return this.all;
  }

  wide() { return (this.width < NARROW ? this.width : this.width * 0.56) - LEFT - 8; }

  heightAt(width) { return (width < NARROW ? CURVES : 0) + 3 * STRIP; }

  paint(c, width) {
    const beside = width >= NARROW, lines = this.lines(), x = beside ? LEFT + this.wide() + 24 : 0, y = beside ? 0 : CURVES;
    this.curves(c, { x: LEFT, width: this.wide() }, lines);
    this.strips.forEach(([title, of], n) => this.strip(c, { x, y: y + n * STRIP, width: width - x }, title, of, lines));
  }

  curves(c, { x, width }, lines) {
    const { inkText, paperText } = this.theme, last = this.atlas.common.epochs, boxes = [{ x, y: TOP, width, height: ACCURACY }, { x, y: 2 * TOP + FOOT + ACCURACY, width, height: LOSS }];
    const labels = new Labels(c, x + width, TOP + ACCURACY, paperText);
    ["test accuracy, %", "training loss, nats, against epochs"].forEach((title, n) => {
      const box = boxes[n], high = n ? 2.5 : 100, { across, up } = ground(c, box, [1, last], [0, high], inkText), name = n ? "loss" : "accuracy";
      write(c, title, x, box.y - 13, inkText, "left", 600);
      line(c, [[across(this.now + 1), box.y], [across(this.now + 1), box.y + box.height]], inkText, 1, [3, 3]);
      for (const { row, color, label } of [...lines].reverse()) {
        if (!row[name]) continue;
        const point = (value, i) => [across(i + 1), up(between(value, 0, high))];
        if (!n) this.band(c, row, point, color);
        line(c, row[name].map(point), color, row === lines[0].row ? 3 : 1.8);
      }
      if (!n) for (const { row, color, label } of lines) if (row.accuracy) labels.put(label, [across(last), up(row.accuracy.at(-1))], color, { sides: [[-1, -1], [-1, 1], [-1, -2], [-1, 2]] });
    });
  }

  band(c, { accuracy, spread }, point, color) {
    const edge = (sign) => accuracy.map((v, i) => point(v + sign * spread[i], i));
    c.beginPath();
    for (const p of [...edge(1), ...edge(-1).reverse()]) c.lineTo(...p);
    Object.assign(c, { fillStyle: color, globalAlpha: 0.15 });
    c.fill();
    c.globalAlpha = 1;
  }

  strip(c, { x, y, width }, title, of, lines) {
    const found = lines.map(({ row, ...rest }) => ({ ...rest, value: of(row) })), left = 96, { inkText } = this.theme, box = { x: x + left, y: y + TOP, width: width - left - 4, height: 3 * ROW };
    const { across } = ground(c, box, near(found.flatMap(({ value }) => (value ? [value.mean - value.std, value.mean + value.std] : [])), 1), null, inkText);
    write(c, title, x, y + 12, inkText, "left", 600);
    const inside = this.others.map(of).filter(Boolean).map(({ mean }) => across(mean)).filter((u) => u >= box.x && u <= box.x + box.width), foot = box.y + box.height;
    line(c, inside.flatMap((u) => [[u, foot - 6], [u, foot], null]), inkText, 1);
    found.forEach(({ label, color, value }, i) => {
      const v = box.y + (i + 0.5) * ROW - 3;
      write(c, label, box.x - 6, v, color, "right", i ? 400 : 600);
      if (value) interval(c, across, v, value, color);
      else write(c, "diverged", box.x + 6, v, color);
    });
  }

  told() {
    const { setting } = this.state, { seeds } = this.atlas, row = this.row(), name = `k = ${setting.k}, ρ = ${setting.rho}, α = ${setting.alpha}`;
    if (!row.accuracy) return [`${name}: ${row.failed} of ${seeds.length} seeds diverged.`, this.advice()];
    const i = this.now, good = seeds.length - row.failed, end = row.accuracy.at(-1), rank = 1 + this.others.filter(({ accuracy }) => accuracy && accuracy.at(-1) > end).length;
    const text = `${name}: after epoch ${i + 1} test accuracy ${row.accuracy[i].toFixed(1)} % ± ${row.spread[i].toFixed(1)} over ${good} seeds, training loss ${words(row.loss[i])}.`;
    const ends = `At the end, with noisy weights ${row.noisy[0].toFixed(1)} % ± ${row.noisy[1].toFixed(1)}, worst rise ${words(row.rise[0])} nats / 1000; ${row.gradients} gradients; place ${rank} of ${this.others.length} by accuracy at this learning rate.`;
    return [text, `${ends}${row.failed ? ` ${row.failed} seeds diverged.` : ""}${end < CHANCE ? ` ${this.advice()}` : ""}`];
  }

  // Why training fails: the two lengths of notebook 10.
  advice() {
    const { k, rho, alpha, lr } = this.state.setting;
    return `It learned nothing: the effective radius ρ (k + 1) / 2 is ${words((rho * (k + 1)) / 2)}, the step α k lr ${alpha === "adaptive" ? `up to ${words(k * lr)}` : words(alpha * k * lr)}; lower one of them.`;
  }

  count() { return this.atlas.common.epochs; }

  step(right, down) { return this.now + right - down; }

  point(x, y) { return x < this.wide() + LEFT + 8 && y < CURVES ? Math.round(((x - LEFT) / this.wide()) * (this.count() - 1)) : null; }
}

const render = renders(Atlas);
export { still };
export default { render };
