// The curves of the lab's runs, with a mark where a number was moved.

import { dot, dots, line, ticks } from "../shared/canvas.js";
import { FONT, Labels, between, words } from "../shared/drawing.js";

// `lines`: curve, column, width.
export const PLOTS = [
  { name: "accuracy", title: "Accuracy (thick: test, thin: training)", lines: [["test", 1, 2.4], ["train", 1, 1.1]] },
  { name: "loss", title: "Loss in nats (thick: test, thin: training)", lines: [["test", 2, 2.4], ["train", 2, 1.1]] },
  { name: "sharpness", title: "Sharpness: rise of the loss within 0.05", lines: [["sharpness", 1, 2.4]] },
];
const LEFT = 40, RIGHT = 10, TOP = 8, BOTTOM = 20, ROW = 15, ROWS = 4; // of words above a plot
const SIDES = [0, 1.1, 2.2, 3.3].flatMap((row) => [[1, row], [-1, row]]);

// The last epoch that is drawn: of what trains, twice what it needs, up to its budget.
export const reach = (runs) => Math.max(...runs.map(({ state, budget, curves }) => {
  const now = Math.max(curves.test.at(-1)[0], 1e-9);
  return state === "running" ? Math.min(budget, Math.max(10, 2 ** Math.ceil(Math.log2(now * 1.05)))) : Math.max(now, 1);
}));

const median = (values) => values.filter(Number.isFinite).sort((a, b) => a - b)[values.length >> 1] ?? 0;

// What rises far above the rest is cut off.
function heights(plot, runs) {
  const seen = runs.flatMap(({ curves }) => plot.lines.flatMap(([curve, column]) => curves[curve].map((p) => p[column]).filter(Number.isFinite)));
  if (plot.name === "accuracy") return [0, 1];
  const usual = runs.map(({ curves: { test, sharpness } }) => (plot.name === "loss" ? test[0][2] : median(sharpness.map((p) => p[1]))));
  return [Math.min(0, ...seen), Math.min(Math.max(...seen, 1e-3), 3 * Math.max(...usual, 1e-3)) * 1.05];
}

export function drawPlot(pad, plot, { runs, last, at, theme }) {
  const { width, height } = pad, c = pad.clear(), [low, high] = heights(plot, runs);
  const moves = runs.filter(({ lit }) => lit).reduce((sum, run) => sum + run.ticks.length, 0), top = TOP + (plot.name === "accuracy" ? ROW * Math.min(moves, ROWS) : 0);
  const x = (epoch) => LEFT + (epoch / last) * (width - LEFT - RIGHT), y = (v) => top + (height - top - BOTTOM) * between((high - v) / (high - low), 0, 1);
  grid(c, { x, y, low, high, last, width, height, theme });
  const labels = new Labels(c, width, height, theme.paperText);
  for (const run of [...runs].sort((a, b) => a.lit - b.lit)) {
    c.globalAlpha = run.lit ? 1 : 0.2;
    for (const [curve, column, thick] of plot.lines) {
      const points = run.curves[curve].map((p) => (Number.isFinite(p[column]) ? [x(p[0]), y(p[column])] : null));
      line(c, points, run.color, thick, run.dash);
      if (points.length === 1 && points[0]) dot(c, points[0], 2.5, run.color);
    }
    c.globalAlpha = 1;
  }
  for (const run of runs.filter(({ lit }) => lit)) {
    for (const [epoch, text] of run.ticks) {
      line(c, [[x(epoch), TOP], [x(epoch), height - BOTTOM]], run.color, 1, [3, 3]);
      if (plot.name === "accuracy") labels.put(text, [x(epoch), TOP + 1], run.color, { gap: 4, size: 12, sides: SIDES });
    }
  }
  if (at !== null) line(c, [[x(at), top], [x(at), height - BOTTOM]], theme.inkText, 1);
}

function grid(c, { x, y, low, high, last, width, height, theme }) {
  Object.assign(c, { font: `12px ${FONT}`, fillStyle: theme.inkText, textBaseline: "alphabetic", textAlign: "right" });
  for (const value of ticks(low, high)) {
    c.fillText(words(Math.abs(value) < 1e-9 ? 0 : value), LEFT - 5, y(value) + 4);
    c.globalAlpha = 0.18;
    line(c, [[LEFT, y(value)], [width - RIGHT, y(value)]], theme.inkText, 1);
    c.globalAlpha = 1;
  }
  c.textAlign = "center";
  for (const epoch of ticks(0, last).filter(Number.isInteger)) c.fillText(words(epoch, 6), between(x(epoch), 8, width - 16), height - 5);
}

export function drawAlpha(pad, run, theme) {
  const { width, height } = pad, c = pad.clear(), n = run.alpha.length;
  Object.assign(c, { font: `12px ${FONT}`, fillStyle: theme.inkText, textAlign: "right" });
  const y = (value) => 6 + (height - 12) * (1 - between(value, 0, 1));
  for (const value of [0, 1]) {
    c.fillText(value, LEFT - 5, y(value) + 4);
    c.globalAlpha = 0.18;
    line(c, [[LEFT, y(value)], [width - RIGHT, y(value)]], theme.inkText, 1);
    c.globalAlpha = 1;
  }
  const at = run.alpha.map(([, value], i) => [LEFT + ((i + 0.5) / n) * (width - LEFT - RIGHT), y(value)]);
  line(c, at, run.color, 1);
  dots(c, at, 3, run.color);
}

const nearestTo = (points, epoch) => points.reduce((best, p) => (Math.abs(p[0] - epoch) < Math.abs(best[0] - epoch) ? p : best), points[0]);

// The runs' values at an epoch, in words.
export function valuesAt(runs, epoch) {
  return runs.map(({ words: name, curves: { test, train, sharpness } }) => {
    const [at, accuracy, loss] = nearestTo(test, epoch), rise = sharpness.length ? `, sharpness ${words(nearestTo(sharpness, epoch)[1])}` : "";
    return `${name}, epoch ${words(at)}: test ${words(accuracy)}, training ${words(nearestTo(train, epoch)?.[1] ?? NaN)}, test loss ${words(loss)}${rise}`;
  }).join("; ");
}

// A plot in words, for who can't see it.
export function inWords(runs, { lines: [[curve, column]] }) {
  return runs.map(({ words: name, curves, ticks: moves }) => {
    const points = curves[curve], from = points[0], to = points.at(-1), moved = moves.map(([epoch, text]) => `; ${text} at epoch ${words(epoch)}`).join("");
    return to ? `${name}: from ${words(from[column])} to ${words(to[column])} at epoch ${words(to[0])}${moved}.` : `${name}: nothing yet.`;
  }).join(" ");
}
