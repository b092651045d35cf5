// Accuracy matrices of methods while tasks arrive: row i is what a network knows after task i.

import { line } from "../shared/canvas.js";
import { element, say, still } from "../shared/controls.js";
import { between } from "../shared/drawing.js";
import { shaded, spread, write } from "../shared/plot.js";
import { Sheet, renders } from "../shared/sheet.js";

const CELL = 30, TOP = 46, FOOT = 42, GAP = 18, LEFT = 40, NARROW = 160, BEAT_MS = 1000;
const mean = (values) => values.reduce((sum, v) => sum + v, 0) / values.length;
const once = (values) => values.filter((value, i) => values.indexOf(value) === i);

// Of one seed's R after the task `last` (from 0), in %: the average accuracy of the tasks so far, and
// how far they fell from the best that they ever had.
const known = (R, last) => 100 * mean(R[last].slice(0, last + 1));
const forgot = (R, last) => 100 * mean(R[last].slice(0, last).map((now, j) => Math.max(...R.slice(0, last).map((row) => row[j])) - now));

class Tasks extends Sheet {
  constructor(model, el) {
    super(model, el, ["sequence", "memory", "learned"], "a cell of the matrices");
    const { close } = this;
    this.close = () => clearInterval(this.timer) || close();
  }

  build() {
    this.rows = this.model.get("rows");
    const [sequences, memories] = ["sequence", "memory"].map((name) => once(this.rows.map((row) => row[name])));
    const says = memories.map((images) => (images ? `a replay of ${images} images` : "no replay"));
    this.menu("Learn", sequences, () => sequences.indexOf(this.state.sequence), (i) => this.turn({ sequence: sequences[i] }));
    this.head.append(" ");
    this.menu("with", says, () => memories.indexOf(this.state.memory), (i) => this.turn({ memory: memories[i] }));
    this.head.append("; tasks learned so far: ");
    this.so = this.number({ name: "tasks learned so far", values: this.numbers(), get: () => this.state.learned - 1, set: (i) => {
      this.stop();
      this.learn(i + 1);
    } });
    this.of = this.head.appendChild(document.createTextNode(""));
    this.play = element("button", this.head, { type: "button" });
    this.play.addEventListener("click", () => (this.timer ? this.stop() : this.start()));
    this.now = this.tasks ** 2 - this.tasks;
  }

  get shown() { return this.rows.filter(({ sequence, memory }) => sequence === this.state.sequence && memory === this.state.memory); }

  get tasks() { return this.shown[0].accuracy[0].length; }

  numbers() { return Array.from({ length: this.tasks }, (_, i) => `${i + 1}`); }

  // Another sequence or memory, with all of its tasks learned; the cursor goes to the first in the end.
  turn(changes) {
    Object.assign(this.state, changes);
    this.stop();
    this.set({ ...changes, learned: this.tasks });
    this.now = this.tasks ** 2 - this.tasks;
  }

  // The cursor keeps its column, in the newest row.
  learn(learned) {
    this.now = (learned - 1) * this.tasks + (this.now % this.tasks);
    this.set({ learned });
  }

  start() {
    this.learn(this.state.learned < this.tasks ? this.state.learned + 1 : 1);
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return; // nothing moves by itself
    this.timer = setInterval(() => {
      if (this.root.isConnected && this.state.learned < this.tasks) this.learn(this.state.learned + 1);
      else this.stop();
    }, BEAT_MS);
  }

  stop() {
    clearInterval(this.timer);
    this.timer = null;
    this.draw();
  }

  columns(width) { return between(Math.floor((width + GAP) / (NARROW + GAP)), 1, this.shown.length); }

  tall() { return TOP + FOOT + CELL * this.tasks; }

  heightAt(width) { return Math.ceil(this.shown.length / this.columns(width)) * this.tall(); }

  // Left upper corner and width of the cells of matrix n.
  box(n) {
    const across = this.columns(this.width), whole = (this.width - 1 - GAP * (across - 1)) / across;
    return { x: (n % across) * (whole + GAP) + LEFT, y: Math.floor(n / across) * this.tall() + TOP, wide: (whole - LEFT) / this.tasks };
  }

  at(place) { return [Math.floor(place / this.tasks), place % this.tasks]; }

  paint(c) {
    const { tasks, theme: { inkText, paper } } = this, learned = (this.state.learned = Math.min(this.state.learned, tasks)); // the kernel may set them one by one
    this.now = Math.min(this.now, this.count() - 1);
    const [row, column] = this.at(this.now);
    this.shown.forEach(({ name, accuracy }, n) => {
      const { x, y, wide } = this.box(n), p = x + column * wide, q = y + row * CELL;
      write(c, name, x - LEFT, y - 34, this.color(name), "left", 600);
      write(c, "after", x - 6, y - 12, inkText, "right");
      write(c, "on task", x + (tasks * wide) / 2, y + tasks * CELL + 28, inkText, "center");
      for (let i = 0; i < tasks; i++) {
        write(c, `${i + 1}`, x - 12, y + (i + 0.5) * CELL, inkText, "right", i === learned - 1 ? 700 : 400);
        write(c, `${i + 1}`, x + (i + 0.5) * wide, y + tasks * CELL + 12, inkText, "center");
        for (let j = 0; j < tasks; j++) {
          const value = mean(accuracy.map((R) => R[i][j])), there = i < learned;
          shaded(c, there ? (100 * value).toFixed(0) : "", there ? value : null, [x + j * wide, y + i * CELL], [wide, CELL], paper);
        }
      }
      line(c, [[x, y - 1], [x + tasks * wide, y - 1], [x + tasks * wide, y + tasks * CELL], [x, y + tasks * CELL], [x, y - 1]], inkText, 1);
      line(c, [[p, q], [p + wide, q], [p + wide, q + CELL], [p, q + CELL], [p, q - 1.5]], inkText, 3);
    });
  }

  told() {
    const { learned } = this.state, last = learned - 1, [i, j] = this.at(this.now), some = this.shown, seeds = some[0].accuracy.length;
    const each = (of) => some.map(({ name, accuracy }) => [name, spread(accuracy.map(of))]);
    const text = (found) => found.map(([name, { mean, std }]) => `${name} ${String(Math.round(mean)).replace("-", "−")} ± ${std.toFixed(0)}`).join(", ");
    this.so.list(this.numbersNow());
    say(this.of, ` of ${this.tasks}. `);
    say(this.play, this.timer ? "Pause" : "▶ Play");
    const one = `Accuracy in % on task ${j + 1} after task ${i + 1}: ${text(each((R) => 100 * R[i][j]))}.`;
    const lost = last ? ` Points forgotten: ${text(each((R) => forgot(R, last)))}.` : "";
    const all = ` Average accuracy on the ${learned > 1 ? `${learned} tasks` : "one task"} learned so far: ${text(each((R) => known(R, last)))}.${lost} Mean ± standard deviation over ${seeds} seeds.`;
    return [one, all];
  }

  // The same list while there are as many tasks.
  numbersNow() { return this.so.values.length === this.tasks ? this.so.values : this.numbers(); }

  count() { return this.state.learned * this.tasks; }

  step(right, down) {
    const [row, column] = this.at(this.now);
    return between(row + down, 0, this.state.learned - 1) * this.tasks + between(column + right, 0, this.tasks - 1);
  }

  point(x, y) {
    const places = this.shown.map((_, n) => this.box(n)).map((box) => [Math.floor((y - box.y) / CELL), Math.floor((x - box.x) / box.wide)]);
    const found = places.find(([row, column]) => row >= 0 && row < this.state.learned && column >= 0 && column < this.tasks);
    return found ? found[0] * this.tasks + found[1] : null;
  }
}

const render = renders(Tasks);
export { still };
export default { render };
