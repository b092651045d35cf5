// Mean ± standard deviation of each method, and how far each is ahead of one of them, seed by seed.

import { still } from "../shared/controls.js";
import { dots } from "../shared/canvas.js";
import { ground, interval, near, spread, write } from "../shared/plot.js";
import { Sheet, renders } from "../shared/sheet.js";

const ROW = 26, TOP = 26, FOOT = 30, NARROW = 640;

class Intervals extends Sheet {
  constructor(model, el) { super(model, el, ["kind", "at", "other"], "a row of the plots"); }

  build() {
    this.tables = this.model.get("tables");
    const kinds = Object.keys(this.tables), [of, level] = this.model.get("words");
    this.names = this.model.get("names");
    this.menu(of, kinds, () => kinds.indexOf(this.state.kind), (i) => this.turn(kinds[i]));
    this.head.append(`, ${level} `);
    this.level = this.number({ name: level, values: this.table.levels, get: () => this.state.at, set: (at) => this.set({ at }) });
    this.head.append(", ");
    this.menu("compared with", this.names, () => this.names.indexOf(this.state.other), (i) => this.set({ other: this.names[i] }));
  }

  get table() { return this.tables[this.state.kind]; }

  // Another kind of noise keeps the level's place in its list.
  turn(kind) { this.set({ kind, at: Math.min(this.state.at, this.tables[kind].levels.length - 1) }); }

  // Of each method: the values of the seeds in %, with mean and spread; then the points ahead.
  columns() {
    const at = (name) => this.table.values[this.names.indexOf(name)].map((seed) => 100 * seed[this.state.at]), than = at(this.state.other);
    return [at, (name) => at(name).map((v, i) => v - than[i])].map((of) => this.names.map((name) => spread(of(name))));
  }

  heightAt(width) { return (width < NARROW ? 2 : 1) * (TOP + FOOT + ROW * this.names.length); }

  paint(c, width) {
    c.font = "600 13px system-ui, sans-serif";
    const { inkText } = this.theme, left = 12 + Math.max(...this.names.map((name) => c.measureText(name).width)), beside = width >= NARROW, whole = this.heightAt(width) / (beside ? 1 : 2);
    const wide = beside ? (width - left - 30) / 2 : width - left - 4;
    const titles = ["test accuracy, %", `points ahead of ${this.state.other}`], long = titles.map((title) => c.measureText(title).width);
    this.shown = this.columns();
    this.shown.forEach((column, n) => {
      const box = { x: left + (beside ? n * (wide + 26) : 0), y: TOP + (beside ? 0 : n * whole), width: wide, height: ROW * this.names.length };
      const { across } = ground(c, box, near(column.flatMap(({ values, mean, std }) => [mean - std, mean + std, ...values]), 1), null, inkText);
      write(c, titles[n], Math.min(box.x, width - long[n] - 4), box.y - 14, inkText, "left", 600);
      this.names.forEach((name, row) => {
        const y = box.y + (row + 0.5) * ROW, color = this.color(name);
        if (row === this.now) {
          Object.assign(c, { fillStyle: inkText, globalAlpha: 0.1 });
          c.fillRect(n && beside ? box.x : box.x - left, y - ROW / 2, wide + (n && beside ? 0 : left), ROW);
          c.globalAlpha = 1;
        }
        if (!n || !beside) write(c, name, box.x - 8, y, color, "right", row === this.now ? 600 : 400);
        dots(c, column[row].values.map((value) => [across(value), y + 8]), 1.8, color);
        interval(c, across, y, column[row], color);
      });
    });
  }

  told() {
    this.level.list(this.table.levels);
    const name = this.names[this.now], [{ mean, std, values }, ahead] = this.shown.map((column) => column[this.now]), of = values.length;
    const points = `${Math.abs(ahead.mean).toFixed(1)} ± ${ahead.std.toFixed(1)} points ${ahead.mean < 0 ? "behind" : "ahead of"} ${this.state.other}`;
    const text = `${name}: ${mean.toFixed(1)} % ± ${std.toFixed(1)} over ${of} seeds${name === this.state.other ? "" : `; ${points}`}.`;
    return [text, "A large dot and its line are mean ± standard deviation, a small dot is a seed."];
  }

  count() { return this.names.length; }

  step(right, down) { return this.now + right + down; }

  point(_, y) { return Math.floor(((y % (TOP + FOOT + ROW * this.count())) - TOP) / ROW); }
}

const render = renders(Intervals);
export { still };
export default { render };
