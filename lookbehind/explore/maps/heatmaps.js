// Heat maps of a sweep: two settings span them, a number holds the third.

import { line } from "../shared/canvas.js";
import { mark, say, still } from "../shared/controls.js";
import { between, star } from "../shared/drawing.js";
import { shaded, write } from "../shared/plot.js";
import { Sheet, renders } from "../shared/sheet.js";

const CELL = 34, TOP = 26, FOOT = 44, GAP = 20, NARROW = 300, SLIM = 42;

class HeatMaps extends Sheet {
  constructor(model, el) { super(model, el, ["span", "at"], "a cell of the maps"); }

  build() {
    this.axes = this.model.get("axes");
    this.maps = this.model.get("maps").map((map) => {
      const [, label, unit = ""] = map.name.match(/^(.*?)(?: \((.*)\))?$/), finite = map.mean.flat(2).filter((v) => v !== null);
      const low = Math.min(...finite), high = Math.max(...finite), digits = between(2 - Math.floor(Math.log10(Math.max(Math.abs(low), Math.abs(high)))), 0, 4);
      return { ...map, label, unit, low, high, text: (value) => (value === null ? "–" : value.toFixed(digits).replace("-", "−")) };
    });
    const names = this.axes.map(([name]) => name);
    this.order();
    ["map of", " ×"].forEach((text, i) => this.menu(text, names, () => this.spanned[i], (axis) => this.turn(i, axis)));
    this.fixed = this.head.appendChild(document.createTextNode(""));
    this.third = this.number({ name: "the third setting", values: this.valuesOf(this.held), get: () => this.state.at, set: (at) => this.set({ at }) });
    this.now = this.best();
  }

  // Places of the settings: that down and that across, which span the maps, and the one that is held.
  order() {
    this.spanned = this.state.span.map((name) => this.axes.findIndex(([axis]) => axis === name));
    this.held = [0, 1, 2].find((axis) => !this.spanned.includes(axis));
    this.size = this.spanned.map((axis) => this.valuesOf(axis).length);
    this.state.at = Math.min(this.state.at, this.valuesOf(this.held).length - 1); // the kernel may set them one by one
  }

  valuesOf(axis) { return this.axes[axis][1]; }

  turn(i, axis) {
    const now = [...this.spanned], before = this.held;
    if (now[1 - i] === axis) now.reverse();
    else now[i] = axis;
    this.state.span = now.map((a) => this.axes[a][0]);
    this.order();
    const at = this.held === before ? this.state.at : Math.floor(this.valuesOf(this.held).length / 2);
    this.set({ span: this.state.span, at });
  }

  // What a map shows in a cell: its mean and spread there.
  value({ mean, spread }, [row, column]) {
    const place = [], [down, across] = this.spanned;
    [place[down], place[across], place[this.held]] = [row, column, this.state.at];
    return [mean, spread].map((values) => place.reduce((part, i) => part[i], values));
  }

  // Row and column of the n-th cell, as one reads.
  at(n) { return [Math.floor(n / this.size[1]), n % this.size[1]]; }

  count() { return this.size[0] * this.size[1]; }

  best() {
    const means = Array.from({ length: this.count() }, (_, n) => this.value(this.maps[0], this.at(n))[0] ?? -Infinity);
    return means.indexOf(Math.max(...means));
  }

  columns(width) { return Math.max(1, Math.min(this.maps.length, Math.floor(width / NARROW))); }

  // The same whatever spans the maps: nothing below them jumps.
  tall() { return TOP + FOOT + CELL * Math.max(...this.axes.map(([, values]) => values.length)); }

  heightAt(width) { return Math.ceil(this.maps.length / this.columns(width)) * this.tall(); }

  // Left upper corner and width of the cells of map n.
  box(n) {
    const across = this.columns(this.width), whole = (this.width - GAP * (across - 1)) / across, columns = this.size[1];
    const left = 12 + 7.5 * Math.max(3, ...this.valuesOf(this.spanned[0]).map((v) => v.length));
    return { x: (n % across) * (whole + GAP) + left, y: Math.floor(n / across) * this.tall() + TOP, cell: (whole - left) / columns };
  }

  paint(c) {
    this.order();
    const [rows, columns] = this.size, [down, across] = this.spanned, { inkText } = this.theme, best = this.best();
    this.now = Math.min(this.now, this.count() - 1);
    this.maps.forEach((map, n) => {
      const { x, y, cell } = this.box(n), corner = (place) => [x + this.at(place)[1] * cell, y + this.at(place)[0] * CELL];
      write(c, this.axes[down][0], x - 8, y - 14, inkText, "right", 600);
      write(c, map.unit ? `${map.label}, ${map.unit}` : map.label, x, y - 14, inkText, "left", 600);
      write(c, this.axes[across][0], x + (columns * cell) / 2, y + rows * CELL + 32, inkText, "center", 600);
      this.valuesOf(down).forEach((value, row) => write(c, value, x - 8, y + (row + 0.5) * CELL, inkText, "right"));
      this.valuesOf(across).forEach((value, column) => write(c, value, x + (column + 0.5) * cell, y + rows * CELL + 13, inkText, "center", 400, cell < SLIM ? 11 : 13));
      for (let place = 0; place < this.count(); place++) {
        const [mean] = this.value(map, this.at(place));
        shaded(c, map.text(mean), mean === null ? null : (mean - map.low) / (map.high - map.low || 1), corner(place), [cell, CELL], this.theme.paper);
      }
      const [u, v] = corner(best), [p, q] = corner(this.now);
      line(c, [[p, q], [p + cell, q], [p + cell, q + CELL], [p, q + CELL], [p, q - 1.5]], inkText, 3);
      c.save();
      c.translate(u + cell - 6, v + 6); // clear of the number
      c.scale(0.5, 0.5);
      star(c, [0, 0], "#000", "#fff");
      c.restore();
    });
  }

  told() {
    const third = this.held, [first] = this.maps, seeds = this.model.get("seeds"), cell = this.at(this.now), best = this.at(this.best());
    say(this.fixed, ` at ${this.axes[third][0]} = `);
    mark(this.third.input, { "aria-label": this.axes[third][0] });
    this.third.list(this.valuesOf(third));
    const where = ([row, column]) => this.spanned.map((axis, i) => `${this.axes[axis][0]} = ${this.valuesOf(axis)[[row, column][i]]}`).join(", ");
    const text = this.maps.map((map) => {
      const [mean, spread] = this.value(map, cell), percent = map.unit === "%";
      return mean === null ? `${map.label}: some runs failed` : `${map.label} ${map.text(mean)}${percent ? " %" : ""} ± ${map.text(spread)}${percent ? "" : ` ${map.unit}`}`;
    }).join("; ");
    const more = `★ best ${first.label} of this map: ${where(best)}, ${first.text(this.value(first, best)[0])} ${first.unit}.`.replace(" .", ".");
    return [`${where(cell)}: ${text} over ${seeds} seeds.`, more];
  }

  step(right, down) {
    const [rows, columns] = this.size, [row, column] = this.at(this.now);
    return between(row + down, 0, rows - 1) * columns + between(column + right, 0, columns - 1);
  }

  point(x, y) {
    const [rows, columns] = this.size;
    const places = this.maps.map((_, n) => this.box(n)).map((box) => [Math.floor((y - box.y) / CELL), Math.floor((x - box.x) / box.cell)]);
    const [row, column] = places.find(([row, column]) => row >= 0 && row < rows && column >= 0 && column < columns) ?? this.at(this.now);
    return row * columns + column;
  }
}

const render = renders(HeatMaps);
export { still };
export default { render };
