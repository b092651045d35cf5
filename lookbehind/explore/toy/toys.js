// A loss as the page needs it: its functions, its window, its minima, how it is written.

import { minimaOf } from "./basins.js";
import { makeLoss, sharpness } from "./engine.js";
import { fromGrid } from "./kernel.js";

export const ASPECT = 0.72; // height of the map over its width, for every loss: the page keeps its shape

// A window of the map's shape, with equal units on both axes, unless it is far from that shape.
function widened([x0, x1, y0, y1]) {
  const share = (y1 - y0) / (x1 - x0) / ASPECT, u = ((x1 - x0) * (share - 1)) / 2, v = ((y1 - y0) * (1 / share - 1)) / 2;
  if (share > 1.6 || share < 1 / 1.6) return [x0, x1, y0, y1];
  return share > 1 ? [x0 - u, x1 + u, y0, y1] : [x0, x1, y0 - v, y1 + v];
}

// An expression as it is written by hand: x² y, not x**2*y.
const pretty = (text) => (text || "f(x, y)").replace(/\*\*(\d+)/g, (_, digits) => digits.replace(/\d/g, (d) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[d])).replace(/\s*\*\s*/g, " ").replace(/ - /g, " − ").replace(/(?<!\w )-/g, "−");

// How Python names a loss of the reader's own.
function codeOf({ own, name, expression, start, window }) {
  if (!own) return {};
  if (!expression) return { python: "your_loss  # the function that the explorer was given", imports: "" };
  return { python: `ToyLoss("${name}", ${JSON.stringify(expression)}, (${start.join(", ")}), (), (${window.join(", ")}), "")`, imports: "ToyLoss" };
}

// A loss as the page needs it: from its definition, or from what the kernel has sent.
export function toyOf(given, grid) {
  const loss = given.javascript ? makeLoss(given.javascript) : fromGrid(grid);
  const toy = { ...given, window: widened(given.window), loss, source: given.javascript, ...codeOf(given), formula: pretty(given.expression), kernel: !given.javascript, value: loss.loss, sharpness: (p) => sharpness(loss, p) };
  toy.stars = given.javascript ? minimaOf(toy) : [];
  const flat = toy.stars.some(([x, y]) => { const [a, b, d] = loss.hessian(x, y); return a * d - b * b < 1e-6 * (a + d) ** 2; });
  return Object.assign(toy, { flattest: flat || toy.stars.length > 1 ? "flattest minimum" : "minimum" });
}
