// Where would each start end? A picture in which every pixel is a start, from coarse to fine.

import { between } from "../shared/drawing.js";
import { endPoint, sharpness } from "./engine.js";
import { far } from "./story.js";

const SLICE = 9; // ms of computing at a time: the page stays under the hand
const FINEST = 100; // starts along the longer side

// Where a loss has isolated minima: Newton from a lattice, where the loss comes without a list.
export function minimaOf(toy) {
  if (toy.minima.length) return toy.minima;
  const [x0, x1, y0, y1] = toy.window, found = [], size = Math.max(x1 - x0, y1 - y0);
  for (let n = 0; n < 15 * 11; n++) {
    let x = x0 + (((n % 15) + 0.5) / 15) * (x1 - x0), y = y0 + ((Math.floor(n / 15) + 0.5) / 11) * (y1 - y0);
    for (let i = 0; i < 30; i++) {
      const [gx, gy] = toy.loss.gradient(x, y), [a, b, d] = toy.loss.hessian(x, y), det = a * d - b * b;
      const newton = a > 0 && det > 1e-9 * a * d, step = newton ? [(d * gx - b * gy) / det, (a * gy - b * gx) / det] : [gx, gy];
      const cut = Math.min(1, (0.05 * size) / (Math.hypot(...step) || 1));
      [x, y] = [x - cut * step[0], y - cut * step[1]];
    }
    const [gx, gy] = toy.loss.gradient(x, y), [a, b, d] = toy.loss.hessian(x, y);
    const good = Math.hypot(gx, gy) < 1e-6 && a > 0 && a * d - b * b > 1e-6 && x >= x0 && x <= x1 && y >= y0 && y <= y1;
    if (good && !found.some(([u, v]) => Math.hypot(u - x, v - y) < 0.01 * size)) found.push([x, y]);
  }
  return found.slice(0, 6);
}

// The number of the minimum where a path ended; −1 where at none, −2 where it diverged.
function place(minima, [x, y], reach) {
  if (!(Math.abs(x) < far && Math.abs(y) < far)) return -2;
  let best = -1, nearest = reach;
  minima.forEach(([u, v], i) => {
    const d = Math.hypot(u - x, v - y);
    if (d < nearest) [best, nearest] = [i, d];
  });
  return best;
}

// Computes pass after pass, in slices; `show(done)` after each pass, until `stop` or all is done.
export class Basins {
  constructor(show) {
    Object.assign(this, { show, run: 0, key: "" });
    this.channel = new MessageChannel();
    this.channel.port1.onmessage = ({ data }) => data === this.run && this.slice();
  }

  stop() {
    this.run++;
    this.key = "";
  }

  // `width` and `height` are those of the map; the same setting is computed once.
  want(toy, setting, width, height) {
    const key = JSON.stringify([toy.name, { ...setting, start: 0 }, toy.source]);
    if (key === this.key) return;
    this.run++;
    const W = Math.round(FINEST * Math.min(1, width / height)), H = Math.round(FINEST * Math.min(1, height / width)), minima = minimaOf(toy);
    const [x0, x1, y0, y1] = toy.window, reach = 0.12 * Math.hypot(x1 - x0, y1 - y0);
    Object.assign(this, { key, toy, setting, W, H, minima, reach, block: 8, row: 0, due: 0, began: performance.now() });
    Object.assign(this, { at: new Int8Array(W * H), sharp: new Float32Array(W * H), known: new Uint8Array(W * H), shown: null });
    this.slice();
  }

  slice() {
    const until = performance.now() + SLICE, { W, H } = this;
    while (this.block) {
      for (; this.row < H; this.row += this.block) {
        if (performance.now() > until) return this.channel.port2.postMessage(this.run);
        for (let i = 0; i < W; i += this.block) if (!this.known[this.row * W + i]) this.start(i, this.row);
      }
      this.shown = { block: this.block, whole: this.block === 1, ms: performance.now() - this.began };
      this.block >>= 1;
      this.row = 0;
      const now = performance.now(); // a picture costs as much as a slice
      if (!this.block || now > this.due) this.show();
      this.due = now + 80;
    }
  }

  start(i, j) {
    const { W, H, toy, setting, minima, reach } = this, [x0, x1, y0, y1] = toy.window, n = j * W + i;
    const end = endPoint(toy.loss, setting, x0 + ((i + 0.5) / W) * (x1 - x0), y1 - ((j + 0.5) / H) * (y1 - y0));
    this.known[n] = 1;
    this.at[n] = place(minima, end, reach);
    this.sharp[n] = this.at[n] === -2 ? NaN : sharpness(toy.loss, end);
  }

  // The picture of the last whole pass; `color(n)` gives the colour of a computed start.
  image(color) {
    const { W, H, shown: { block } } = this, image = new ImageData(W, H);
    for (let j = 0; j < H; j++) {
      for (let i = 0; i < W; i++) {
        const from = (j - (j % block)) * W + i - (i % block), [r, g, b] = color(from);
        image.data.set([r, g, b, 255], 4 * (j * W + i));
      }
    }
    return image;
  }

  // Of all starts computed, the share that ends at each minimum, between them, and nowhere.
  shares() {
    const counts = new Map(), { W, shown: { block } } = this;
    let all = 0;
    this.at.forEach((place, n) => {
      if ((n % W) % block || Math.floor(n / W) % block) return;
      counts.set(place, (counts.get(place) ?? 0) + 1);
      all++;
    });
    return { all, share: (place) => (counts.get(place) ?? 0) / all };
  }

  // The 98th percentile of the sharpness: a few steep ends don't set the scale.
  top() {
    const known = [...this.sharp].filter((v, n) => this.known[n] && Number.isFinite(v)).sort((a, b) => a - b);
    return Math.max(known[Math.floor(0.98 * (known.length - 1))] ?? 1, 1e-3);
  }
}

// Dark blue to yellow, for every eye (after cividis).
const SCALE = [[0, 34, 78], [53, 69, 108], [102, 105, 112], [148, 142, 119], [200, 184, 102], [254, 232, 56]];

export function scale(share) {
  const at = between(share, 0, 1) * (SCALE.length - 1), i = Math.min(Math.floor(at), SCALE.length - 2), f = at - i;
  return SCALE[i].map((v, c) => v + f * (SCALE[i + 1][c] - v));
}
