// Values of a plane, where they stand on the one scale of all networks, and the scale's colours.

import { ticks } from "../shared/canvas.js";
import { between } from "../shared/drawing.js";

export const QUANTITIES = { rise: "rise above its own minimum", loss: "loss", accuracy: "accuracy" };
export const BANDS = 14;
export const SHADES = 16;
export const DARKER = 7; // shades, on the line between two bands
const VIRIDIS = ["440154", "482475", "414487", "355f8d", "2a788e", "21918c", "22a884", "44bf70", "7ad151", "bdda26", "fde725"]
  .map((hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16)));
const LOG_FROM = 20, FLOOR = 1e-4; // the loss is drawn on a logarithmic scale where it spans more than LOG_FROM; its lowest there, of the highest
const APART = 0.09; // of two marks on the scale

export function color(t) {
  const at = between(t, 0, 0.9999) * (VIRIDIS.length - 1), i = at | 0;
  return VIRIDIS[i].map((v, c) => v + (at - i) * (VIRIDIS[i + 1][c] - v));
}

// Pixels by shade (the last is the full colour) and place on the scale, in 256 steps.
export const TABLE = new Uint32Array(SHADES * 256);
for (let shade = 0; shade < SHADES; shade++) {
  for (let t = 0; t < 256; t++) {
    const [r, g, b] = color(t / 255).map((v) => Math.round(v * (0.5 + (0.5 * shade) / (SHADES - 1))));
    TABLE[shade * 256 + t] = (255 << 24) | (b << 16) | (g << 8) | r;
  }
}

// What the kernel sent of a network, with its own lowest loss, and a line where there is none yet.
export function prepared(net) {
  const { plane } = net, row = plane && plane.b.length >> 1;
  const line = net.line ?? (plane && { a: plane.a, loss: plane.loss[row], accuracy: plane.accuracy[row] });
  const all = [...(plane ? plane.loss.flat() : []), ...(line ? line.loss : [])].filter((v) => v !== null);
  return { ...net, line, lowest: Math.min(...all), highest: Math.max(...all) };
}

export function valueOf(net, quantity, loss, accuracy) {
  if (quantity === "accuracy") return accuracy;
  return loss === null || quantity === "loss" ? loss : loss - net.lowest;
}

// A network's plane as t in [0, 1] on the scale, row by row from below; NaN where it isn't finite.
export function gridOf(net, quantity, scale) {
  const { loss, accuracy } = net.plane, columns = loss[0].length, rows = loss.length, t = new Float32Array(columns * rows);
  for (let j = 0, n = 0; j < rows; j++) {
    for (let i = 0; i < columns; i++, n++) {
      const value = valueOf(net, quantity, loss[j][i], accuracy[j][i]);
      t[n] = value === null ? NaN : between(scale(value), 0, 1);
    }
  }
  return { columns, rows, t, heights: scale.kind === "root" ? t.map((v) => v * v) : t };
}

// Lowest (0) to highest (1) over all networks together. The rise is drawn as its root: what is low shows.
export function scaleOf(nets, quantity) {
  let low = Infinity, high = -Infinity;
  for (const net of nets) {
    for (const part of [net.plane, net.line]) {
      const losses = part ? part.loss.flat() : [], accuracies = part ? part.accuracy.flat() : [];
      losses.forEach((loss, i) => {
        const v = valueOf(net, quantity, loss, accuracies[i]);
        if (v !== null && v !== undefined) [low, high] = [Math.min(low, v), Math.max(high, v)];
      });
    }
  }
  if (low === Infinity) [low, high] = [0, 1];
  return scale(low, Math.max(high, low + 1e-6), quantity);
}

export function scale(low, high, quantity) {
  const kind = quantity === "rise" ? "root" : quantity === "loss" && high > LOG_FROM * Math.max(low, 0) ? "log" : "";
  const from = kind === "log" ? Math.max(low, FLOOR * high) : low;
  const f = kind === "log" ? (v) => Math.log(Math.max(v, from)) : kind === "root" ? (v) => Math.sqrt(Math.max(v - from, 0)) : (v) => v;
  return Object.assign((v) => (f(v) - f(from)) / (f(high) - f(from)), { low: from, high, kind });
}

// Round values for a scale, none too near to the next.
export function marks(scale) {
  const { low, high, kind } = scale, some = kind ? [low] : ticks(low, high);
  if (kind) for (let e = Math.floor(Math.log10(Math.max(low, 1e-4 * high))); e <= Math.log10(high); e++) for (const m of [1, 2, 5]) some.push(m * 10 ** e);
  const chosen = kind === "root" ? [low] : [], inside = some.slice(kind ? 1 : 0).filter((v) => v >= low && v <= high);
  for (const v of inside.sort((a, b) => b - a)) if (chosen.every((w) => Math.abs(scale(v) - scale(w)) > APART)) chosen.push(v);
  return chosen;
}
