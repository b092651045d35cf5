// What the explorers' pictures are made of: canvases that fit their place, ground, arrows, labels.

import { line, wedge } from "./canvas.js";

export const FONT = "system-ui, sans-serif";
const SHARPEST = 2; // pixels of a canvas to a CSS pixel: more costs a phone its fluency
const LEVELS = 14, HIGHEST = 1.49; // between two lines: a plateau has none

export const project = ({ x0, x1, y0, y1, width, height }, [x, y]) =>
  [((x - x0) / (x1 - x0)) * width, height - ((y - y0) / (y1 - y0)) * height];

export const unproject = ({ x0, x1, y0, y1, width, height }, [u, v]) =>
  [x0 + (u / width) * (x1 - x0), y1 - (v / height) * (y1 - y0)];

export const between = (value, low, high) => Math.min(Math.max(value, low), high);

// A number as a reader wants it: three digits, a true minus.
export function words(value, digits = 3) {
  if (!Number.isFinite(value)) return "not finite";
  const size = Math.abs(value);
  const text = size < 1e-12 ? "0" : size < 1e-3 || size >= 1e5 ? value.toExponential(1).replace("e+", "e") : String(+value.toPrecision(digits));
  return text.replace(/-/g, "−");
}

// A canvas whose pen counts in CSS pixels, as sharp as the screen. It is cleared by `fit`.
export class Pad {
  constructor(element) {
    Object.assign(this, { element, c: element.getContext("2d"), width: 0, height: 0, ratio: 1, seen: true });
  }

  fit(width, height) {
    const ratio = Math.min(window.devicePixelRatio || 1, SHARPEST), { element } = this;
    if (width === this.width && height === this.height && ratio === this.ratio) return;
    Object.assign(this, { width, height, ratio });
    Object.assign(element, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
    element.style.height = `${height}px`;
  }

  clear() {
    this.c.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    this.c.clearRect(0, 0, this.width, this.height);
    return this.c;
  }
}

// The loss at the corners of square cells over a view, as a share of what the map spans, ∛ taken.
function relief(value, view, span, cell) {
  const W = Math.ceil(view.width / cell) + 1, H = Math.ceil(view.height / cell) + 1, share = new Float32Array(W * H);
  const dx = ((view.x1 - view.x0) * cell) / view.width, dy = ((view.y1 - view.y0) * cell) / view.height, scale = span[1] - span[0] || 1;
  for (let j = 0, n = 0; j < H; j++) {
    for (let i = 0; i < W; i++, n++) {
      const loss = value(view.x0 + i * dx, view.y1 - j * dy);
      share[n] = loss <= span[0] ? 0 : loss < Infinity ? Math.min(Math.cbrt((loss - span[0]) / scale), HIGHEST) : HIGHEST;
    }
  }
  return { share, W, H, cell };
}

// Lowest and highest finite value over a view.
export function spanOf(value, view, n = 60) {
  let low = Infinity, high = -Infinity;
  for (let j = 0; j <= n; j++) {
    for (let i = 0; i <= n; i++) {
      const loss = value(view.x0 + (i / n) * (view.x1 - view.x0), view.y0 + (j / n) * (view.y1 - view.y0));
      if (Number.isFinite(loss)) [low, high] = [Math.min(low, loss), Math.max(high, loss)];
    }
  }
  return low < high ? [low, high] : [low === Infinity ? 0 : low, (low === Infinity ? 0 : low) + 1];
}

// Marching squares: the lines on which LEVELS · share is whole.
function contours({ share, W, H, cell }) {
  const path = new Path2D();
  for (let j = 0; j + 1 < H; j++) {
    for (let i = 0; i + 1 < W; i++) {
      const n = j * W + i, a = LEVELS * share[n], b = LEVELS * share[n + 1], c = LEVELS * share[n + W + 1], d = LEVELS * share[n + W];
      const top = Math.floor(Math.max(a, b, c, d)), x = i * cell, y = j * cell;
      for (let level = Math.max(Math.ceil(Math.min(a, b, c, d)), 1); level <= top; level++) {
        let pen = 0;
        if (a < level !== b < level) pen = meet(path, pen, x + (cell * (level - a)) / (b - a), y);
        if (b < level !== c < level) pen = meet(path, pen, x + cell, y + (cell * (level - b)) / (c - b));
        if (c < level !== d < level) pen = meet(path, pen, x + (cell * (level - d)) / (c - d), y + cell);
        if (d < level !== a < level) meet(path, pen, x, y + (cell * (level - a)) / (d - a));
      }
    }
  }
  return path;
}

function meet(path, pen, u, v) {
  if (pen % 2) path.lineTo(u, v);
  else path.moveTo(u, v);
  return pen + 1;
}

const scratch = document.createElement("canvas"); // kept: a new one is dear

// The ground of a view: shades between paper (low) and ink (high), and contour lines.
export function drawGround(c, value, view, span, { paper, ink, inkText }, { cell = 5, shades = true, lines = true } = {}) {
  const found = relief(value, view, span, cell), { share, W, H } = found;
  if (shades) {
    const image = new ImageData(W, H), steps = paper.map((v, i) => 0.17 * (ink[i] - v));
    for (let n = 0, o = 0; n < share.length; n++, o += 4) {
      for (let i = 0; i < 3; i++) image.data[o + i] = paper[i] + steps[i] * share[n];
      image.data[o + 3] = 255;
    }
    if (scratch.width < W || scratch.height < H) Object.assign(scratch, { width: W, height: H });
    scratch.getContext("2d").putImageData(image, 0, 0);
    c.drawImage(scratch, 0, 0, W, H, -cell / 2, -cell / 2, W * cell, H * cell);
  }
  if (!lines) return;
  Object.assign(c, { strokeStyle: inkText, lineWidth: 1, globalAlpha: 0.22 });
  c.stroke(contours(found));
  c.globalAlpha = 1;
}

export function arrow(c, [x, y], [u, v], color, width = 2.5, dash = []) {
  const length = Math.hypot(u - x, v - y), size = Math.min(10, 3 + length / 4), angle = Math.atan2(v - y, u - x);
  if (length < 0.5) return;
  line(c, [[x, y], [u - size * 0.6 * Math.cos(angle), v - size * 0.6 * Math.sin(angle)]], color, width, dash);
  wedge(c, [u, v], angle, size);
  c.fillStyle = color;
  c.fill();
}

export function star(c, [x, y], color, paper) {
  c.beginPath();
  for (let i = 0; i < 10; i++) c.lineTo(x + (i % 2 ? 3.4 : 9) * Math.sin((i * Math.PI) / 5), y - (i % 2 ? 3.4 : 9) * Math.cos((i * Math.PI) / 5));
  c.closePath();
  Object.assign(c, { fillStyle: color, strokeStyle: paper, lineWidth: 1.5 });
  c.stroke();
  c.fill();
}

const widths = new Map();

// Of a text, in the pen's font: measuring is dear, and the same names come in every frame.
function widthOf(c, font, text) {
  const key = `${font}|${text}`;
  if (!widths.has(key)) widths.size > 500 ? widths.clear() : widths.set(key, c.measureText(text).width);
  return widths.get(key) ?? c.measureText(text).width;
}

// Labels beside their points that keep clear of each other and of the picture's rim. `put` returns
// the corners of a label, two numbers each.
export class Labels {
  constructor(c, width, height, paper) {
    Object.assign(this, { c, width, height, paper, taken: [] });
  }

  keepFree(x, y, width, height) { this.taken.push([x, y, x + width, y + height]); }

  put(text, [x, y], color, { gap = 10, size = 13, weight = 600, sides = [[1, 0], [1, 1], [-1, 0], [1, -1], [-1, 1], [-1, -1], [0, 1], [0, -1], [1, 2], [-1, 2], [1, -2], [-1, -2]] } = {}) {
    const { c } = this;
    const font = (c.font = `${weight} ${size}px ${FONT}`), w = widthOf(c, font, text), h = size + 2;
    const boxAt = ([sx, sy]) => {
      const u = between(sx > 0 ? x + gap : sx < 0 ? x - gap - w : x - w / 2, 3, this.width - w - 3);
      const v = between(y - h / 2 + sy * (h + (sx ? 0 : gap - 6)), 2, this.height - h - 2);
      return [u, v, u + w, v + h];
    };
    const free = (b) => this.taken.every((t) => b[2] < t[0] || b[0] > t[2] || b[3] < t[1] || b[1] > t[3]);
    const box = boxAt(sides.find((side) => free(boxAt(side))) ?? sides[0]);
    this.taken.push(box);
    Object.assign(c, { textAlign: "left", textBaseline: "alphabetic", fillStyle: this.paper, globalAlpha: 0.75 });
    c.fillRect(box[0] - 2, box[1], w + 4, h);
    Object.assign(c, { fillStyle: color, globalAlpha: 1 });
    c.fillText(text, box[0], box[3] - 4);
    return box;
  }
}

// A bar of a round length in the lower right corner.
export function scaleBar(c, across, width, height, ink) {
  const length = 10 ** Math.floor(Math.log10(across / 2)), bar = (length / across) * width;
  line(c, [[width - 12 - bar, height - 10], [width - 12, height - 10]], ink, 2);
  Object.assign(c, { font: `12px ${FONT}`, fillStyle: ink, textAlign: "right", textBaseline: "alphabetic" });
  c.fillText(words(length), width - 12, height - 15);
  c.textAlign = "left";
}
