// Why flat might be good: the training loss, a shifted copy of it, and what the shift costs.

import { dot, line } from "../shared/canvas.js";
import { drag, still } from "../shared/controls.js";
import { Labels, between } from "../shared/drawing.js";
import { ground, write } from "../shared/plot.js";
import { Sheet, renders } from "../shared/sheet.js";

const NARROW = 640, TOP = 26, FOOT = 38, LEFT = 34, TALL = 210, HARDNESS = 20, MOST = 2.2;
const WEIGHTS = [-2.2, 2.6], MINIMA = [["sharp", -1], ["flat", 1]];

class ShiftedLoss extends Sheet {
  constructor(model, el) { super(model, el, ["shift", "sharpness", "lead"], "shift of the test loss"); }

  build() {
    this.listed = this.model.get("listed");
    const number = (text, name, says) => {
      this.head.append(text);
      const values = this.listed[name];
      this.number({ name: says, values: values.map(String), pixels: name === "shift" ? 6 : 24, get: () => this.place(name), set: (i) => this.set({ [name]: values[i] }) });
    };
    number("Shift the test loss by ", "shift", "shift of the test loss");
    number(". The left minimum is ", "sharpness", "sharpness of the left minimum");
    number(" times as sharp as the right one, and its training loss is lower by ", "lead", "lead of the left minimum");
    this.head.append(".");
    drag(this.canvas, { begin: (event) => this.held(event), move: (event) => this.moved(event) });
  }

  place(name) { return Math.max(0, this.listed[name].indexOf(this.state[name])); }

  loss(weight, shift = this.state.shift) {
    const at = weight - shift, { sharpness, lead } = this.state, low = (sharpness * (at + 1) ** 2) / 2, high = (at - 1) ** 2 / 2 + lead;
    return Math.min(low, high) - Math.log1p(Math.exp(-HARDNESS * Math.abs(low - high))) / HARDNESS;
  }

  // The plots' places: beside each other, or one below the other.
  boxes() {
    const beside = this.width >= NARROW, width = beside ? this.width * 0.56 - LEFT : this.width - LEFT - 6;
    const second = beside ? { x: this.width * 0.56 + LEFT + 8, y: TOP, width: this.width * 0.44 - LEFT - 16 } : { x: LEFT, y: 2 * TOP + TALL + FOOT, width };
    return [{ x: LEFT, y: TOP, width, height: TALL }, { ...second, height: TALL }];
  }

  heightAt(width) { return (width < NARROW ? 2 : 1) * (TOP + TALL + FOOT); }

  // On the right the pointer says the shift; on the left it takes the curve along.
  held({ offsetX, offsetY }) {
    const second = this.boxes()[1], inside = offsetX > second.x - LEFT && offsetY > second.y - TOP;
    this.from = inside ? null : [offsetX, this.state.shift];
    if (inside) this.moved({ offsetX });
  }

  moved({ offsetX }) {
    const [first, second] = this.boxes(), { shift } = this.listed, [low, high] = [shift[0], shift.at(-1)];
    const to = this.from ? this.from[1] + ((offsetX - this.from[0]) / first.width) * (WEIGHTS[1] - WEIGHTS[0]) : low + ((offsetX - second.x) / second.width) * (high - low);
    this.go(Math.round(((to - low) / (high - low)) * (shift.length - 1)));
  }

  curve(of, [low, high], { across, up }) {
    return Array.from({ length: 301 }, (_, i) => low + (i / 300) * (high - low)).map((v) => [across(v), up(of(v))]);
  }

  inside(c, { x, y, width, height }, work) {
    c.save();
    c.beginPath();
    c.rect(x, y, width, height + 6);
    c.clip();
    work();
    c.restore();
  }

  paint(c) {
    this.now = this.place("shift");
    const { inkText, paperText } = this.theme, [first, second] = this.boxes(), { shift } = this.listed;
    const title = (text, foot, box) => write(c, text, box.x, box.y - 14, inkText, "left", 600) || write(c, foot, box.x + box.width / 2, box.y + box.height + 28, inkText, "center");
    const labels = new Labels(c, this.width, this.heightAt(this.width), paperText), on = ground(c, first, WEIGHTS, [0, MOST], inkText);
    title("loss: training —, test - -", "weight φ", first);
    this.inside(c, first, () => {
      line(c, this.curve((v) => this.loss(v, 0), WEIGHTS, on), inkText, 2);
      line(c, this.curve((v) => this.loss(v), WEIGHTS, on), inkText, 2, [6, 4]);
      for (const [, at] of MINIMA) line(c, [[on.across(at), on.up(this.loss(at, 0))], [on.across(at), on.up(this.loss(at))]], inkText, 5);
      for (const [, at] of MINIMA) dot(c, [on.across(at), on.up(this.loss(at, 0))], 5, inkText) || dot(c, [on.across(at), on.up(this.loss(at))], 5, paperText, inkText);
    });
    for (const [name, at] of MINIMA) labels.put(`${name} +${(this.loss(at) - this.loss(at, 0)).toFixed(2)}`, [on.across(at), Math.max(first.y + 8, on.up(this.loss(at)))], inkText, { sides: [[0, -1], [1, -1], [1, 0], [-1, 0]] });
    const span = [shift[0], shift.at(-1)], top = 1.1, to = ground(c, second, span, [0, top], inkText);
    title("test loss at the two minima", "shift", second);
    this.inside(c, second, () => {
      MINIMA.forEach(([, at], n) => line(c, this.curve((v) => this.loss(at, v), span, to), inkText, n ? 3.5 : 1.5));
      line(c, [[to.across(this.state.shift), second.y], [to.across(this.state.shift), second.y + TALL]], inkText, 1, [2, 3]);
      for (const [, at] of MINIMA) dot(c, [to.across(this.state.shift), to.up(this.loss(at))], 5, paperText, inkText);
    });
    MINIMA.forEach(([name, at], n) => labels.put(name, [to.across(n ? 0.5 : -0.3), between(to.up(this.loss(at, n ? 0.5 : -0.3)), second.y + 8, second.y + TALL)], inkText, { sides: [[0, -1], [0, 1]] }));
  }

  told() {
    const [sharp, flat] = MINIMA.map(([, at]) => Math.max(0, this.loss(at)).toFixed(2)), gap = Math.abs(sharp - flat).toFixed(2); // of what is read
    const better = sharp === flat ? "They are equally good" : `The ${sharp - flat < 0 ? "sharp" : "flat"} one is better by ${gap}`;
    return [`Shift ${this.state.shift.toFixed(2).replace("-", "−")}: test loss ${sharp} at the sharp minimum, ${flat} at the flat one.`, `${better}. Drag either picture.`];
  }

  count() { return this.listed.shift.length; }

  step(right, down) { return this.now + right - down; }

  point() { return null; } // a pointer that is down says more: held() and moved()

  go(place) { if (place !== null) this.set({ shift: this.listed.shift[between(place, 0, this.count() - 1)] }); }
}

const render = renders(ShiftedLoss);
export { still };
export default { render };
