// Flatness against accuracy: a dot a run, and the loss along a line through the one under the pointer.

import { dot, line } from "../shared/canvas.js";
import { still } from "../shared/controls.js";
import { Labels, between } from "../shared/drawing.js";
import { ground, near, spread, write } from "../shared/plot.js";
import { Sheet, renders } from "../shared/sheet.js";

const NARROW = 640, TOP = 26, FOOT = 40, LEFT = 40, TALL = 280, GAP = 24, REACH = 40, FAINT = 0.45;
const SIDES = [[1, 0], [-1, 0], [1, -1], [-1, -1], [1, 1], [-1, 1], [1, -2], [-1, -2], [1, 2], [-1, 2], [1, -3], [-1, -3], [1, 3], [-1, 3], [1, 4], [1, -4]];
const labelsOf = (noise) => (noise ? `${100 * noise} % wrong` : "clean");

class TradeOff extends Sheet {
  constructor(model, el) { super(model, el, ["label_noise", "budget"], "a run; its landscape"); }

  build() {
    this.study = this.model.get("study");
    const of = (name) => [...new Set(this.study.runs.map((run) => run[name]))], noises = of("label_noise"), budgets = of("budget");
    this.head.append("Digits, settings tuned by method; ");
    this.menu("training labels", noises.map(labelsOf), () => noises.indexOf(this.state.label_noise), (i) => this.set({ label_noise: noises[i] }));
    this.head.append(" ");
    this.menu("budget", budgets, () => budgets.indexOf(this.state.budget), (i) => this.set({ budget: budgets[i] }));
    this.now = this.study.seeds.length * this.shown.findIndex(({ name }) => name === "SAM");
  }

  // The rows of this budget and these labels; kept, as they are asked for in each frame.
  get shown() {
    const { label_noise, budget } = this.state, key = `${label_noise} ${budget}`;
    if (this.known !== key) Object.assign(this, { known: key, rows: this.study.runs.filter((run) => run.label_noise === label_noise && run.budget === budget) });
    return this.rows;
  }

  // Row, and place of the seed in it, of the n-th dot.
  at(n) {
    const many = this.study.seeds.length;
    return [this.shown[Math.floor(n / many)], n % many];
  }

  count() { return this.shown.length * this.study.seeds.length; }

  step(right, down) {
    const many = this.study.seeds.length, seed = this.now % many, row = Math.floor(this.now / many);
    return between(row + down, 0, this.shown.length - 1) * many + between(seed + right, 0, many - 1);
  }

  boxes() {
    const beside = this.width >= NARROW, whole = beside ? (this.width - GAP) / 2 : this.width, width = whole - LEFT - 8;
    return [{ x: LEFT, y: TOP, width, height: TALL }, beside ? { x: whole + GAP + LEFT, y: TOP, width, height: TALL } : { x: LEFT, y: 2 * TOP + TALL + FOOT, width, height: TALL }];
  }

  heightAt(width) { return (width < NARROW ? 2 : 1) * (TOP + TALL + FOOT); }

  place(n) {
    const [row, i] = this.at(n);
    return [this.to.across(row.average_rise[i]), this.to.up(100 * row.test[i])];
  }

  point(x, y) {
    if (!this.to) return null;
    const far = Array.from({ length: this.count() }, (_, n) => this.place(n)).map(([u, v]) => Math.hypot(u - x, v - y)), least = Math.min(...far);
    return least < REACH ? far.indexOf(least) : null;
  }

  title(c, text, foot, { x, y, width, height }) {
    write(c, text, x, y - 14, this.theme.inkText, "left", 600);
    write(c, foot, x + width / 2, y + height + 30, this.theme.inkText, "center");
  }

  paint(c) {
    this.now = Math.min(this.now, this.count() - 1);
    const [first, second] = this.boxes();
    this.runs(c, first);
    this.around(c, second);
  }

  runs(c, box) {
    const { inkText, paperText } = this.theme, [chosen] = this.at(this.now), labels = new Labels(c, box.x + box.width + 8, TOP + TALL, paperText);
    this.to = ground(c, box, near(this.shown.flatMap((row) => row.average_rise), 0.001), near(this.shown.flatMap((row) => row.test.map((v) => 100 * v)), 1), inkText);
    this.title(c, "test accuracy, %", `average rise at σ = ${this.study.sigma}, nats`, box);
    const means = this.shown.map((row) => [this.to.across(spread(row.average_rise).mean), this.to.up(100 * spread(row.test).mean)]);
    this.shown.forEach((row, r) => row.test.forEach((_, i) => {
      c.globalAlpha = row === chosen ? 1 : FAINT;
      dot(c, this.place(r * row.test.length + i), row === chosen ? 4.5 : 3.5, this.color(row.name));
      c.globalAlpha = 1;
    }));
    this.shown.forEach((row, r) => dot(c, means[r], row === chosen ? 10 : 7.5, this.color(row.name), paperText));
    dot(c, this.place(this.now), 8, null, inkText);
    labels.keepFree(0, 0, box.x - 4, box.y + TALL);
    for (const [u, v] of means) labels.keepFree(u - 7, v - 7, 14, 14);
    this.shown.forEach((row, r) => this.name(c, labels, row, means[r], row === chosen ? 700 : 400));
  }

  // A label, and a thin line to its dot.
  name(c, labels, { name }, [u, v], weight) {
    const color = this.color(name), [low, top, high, foot] = labels.put(name, [u, v], color, { gap: 14, size: 12, weight, sides: SIDES });
    line(c, [[u, v], [between(u, low, high), between(v, top, foot)]], color, 1.2);
  }

  // Its line, and the mean of SAM's, on a scale that stays while the pointer moves.
  around(c, box) {
    const { at } = this.study, { inkText } = this.theme, [row, i] = this.at(this.now), all = this.shown.flatMap(({ rise }) => rise.flat());
    const { across, up } = ground(c, box, [at[0], at.at(-1)], near(all, 0.1), inkText), color = this.color(row.name), middle = box.x + box.width / 2;
    this.title(c, "rise of the training loss, nats", "distance, in lengths of the weights", box);
    const curve = (values) => values.map((v, n) => [across(at[n]), up(v)]);
    line(c, curve(this.sam()), inkText, 2, [6, 4]);
    line(c, curve(row.rise[i]), color, 3);
    write(c, `${row.name}, seed ${this.study.seeds[i]} —`, middle, box.y + 14, color, "center", 600);
    write(c, "SAM, mean of the seeds - -", middle, box.y + 34, inkText, "center");
  }

  sam() {
    const { rise } = this.shown.find(({ name }) => name === "SAM");
    return rise[0].map((_, n) => spread(rise.map((values) => values[n])).mean);
  }

  told() {
    const [row, i] = this.at(this.now), { seeds } = this.study, ends = (values) => `${values[0].toFixed(2)} and ${values.at(-1).toFixed(2)}`;
    const text = `${row.name}, seed ${seeds[i]}: average rise ${row.average_rise[i].toFixed(4)} nats, test accuracy ${(100 * row.test[i]).toFixed(1)} %; at the ends of the line the loss is higher by ${ends(row.rise[i])} nats (SAM's mean: ${ends(this.sam())}).`;
    const rise = spread(row.average_rise), test = spread(row.test.map((v) => 100 * v));
    return [text, `Mean of ${seeds.length} seeds: ${rise.mean.toFixed(4)} ± ${rise.std.toFixed(4)} nats, ${test.mean.toFixed(1)} % ± ${test.std.toFixed(1)}; training loss ${spread(row.loss).mean.toFixed(3)}. A small dot is a run, a large one a mean.`];
  }
}

const render = renders(TradeOff);
export { still };
export default { render };
