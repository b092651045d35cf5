// Plots with axes: their ground, and what stands on it.

import { dot, line, ticks } from "./canvas.js";
import { rgb } from "./controls.js";
import { FONT, between, words } from "./drawing.js";

const VIRIDIS = ["#440154", "#414487", "#2a788e", "#22a884", "#7ad151", "#fde725"].map((color) => rgb(color));

export function write(c, text, x, y, fillStyle, textAlign = "left", weight = 400, size = 13) {
  Object.assign(c, { fillStyle, textAlign, textBaseline: "middle", font: `${weight} ${size}px ${FONT}` });
  c.fillText(text, x, y);
}

// From the lowest to the highest of some numbers and a little beyond, `least` wide.
export function near(values, least) {
  const low = Math.min(...values), high = Math.max(...values), rim = Math.max(0.06 * (high - low), (least - (high - low)) / 2);
  return Number.isFinite(low) && Number.isFinite(high) ? [low - rim, high + rim] : [0, least];
}

// A plot's ground, with round numbers at its foot and, with `ys`, at its side: the way to its pixels.
export function ground(c, { x, y, width, height }, [x0, x1], ys, ink) {
  const across = (value) => x + ((value - x0) / (x1 - x0)) * width, up = (value) => y + height - ((value - ys[0]) / (ys[1] - ys[0])) * height;
  const faint = (...points) => {
    c.globalAlpha = 0.25;
    line(c, points, ink, 1);
    c.globalAlpha = 1;
  };
  for (const tick of ticks(x0, x1)) {
    faint([across(tick), y], [across(tick), y + height]);
    write(c, words(tick), between(across(tick), x + 10, x + width - 10), y + height + 12, ink, "center");
  }
  for (const tick of ys ? ticks(...ys) : []) {
    faint([x, up(tick)], [x + width, up(tick)]);
    write(c, words(tick), x - 5, up(tick), ink, "right");
  }
  return { across, up };
}

// Mean and sample standard deviation.
export function spread(values) {
  const mean = values.reduce((sum, v) => sum + v, 0) / values.length, squares = values.reduce((sum, v) => sum + (v - mean) ** 2, 0);
  return { values, mean, std: Math.sqrt(squares / Math.max(values.length - 1, 1)) };
}

export function interval(c, across, y, { mean, std }, color) {
  line(c, [[across(mean - std), y], [across(mean + std), y]], color, 2.5);
  dot(c, [across(mean), y], 5, color);
}

function shade(share) {
  const at = between(share, 0, 1) * (VIRIDIS.length - 1), i = Math.min(Math.floor(at), VIRIDIS.length - 2);
  return VIRIDIS[i].map((v, n) => Math.round(v + (at - i) * (VIRIDIS[i + 1][n] - v)));
}

// A cell of a heat map, `share` of the way up its scale; null leaves it as bare as the paper.
export function shaded(c, text, share, [x, y], [width, height], paper) {
  const color = share === null ? paper : shade(share);
  c.fillStyle = `rgb(${color})`;
  c.fillRect(x, y, width - 1, height - 1);
  write(c, text, x + width / 2, y + height / 2, color[0] * 0.3 + color[1] * 0.59 + color[2] * 0.11 > 117 ? "#000" : "#fff", "center");
}
