// A plane as pixels: the triangles of its grid, the nearest first; what is there stays. No graphics
// card is needed, and a pixel knows where on the plane it lies.

import { BANDS, DARKER, SHADES, TABLE } from "./scale.js";

const TALL = 1.3, WIDE = 0.35; // height of the scale, and half a side, in sides of the picture

// How p, q in [−1, 1] and a height in [0, 1] come to lie in a picture of side 1. Parallel rays.
export function eyeOf(solid, azimuth, elevation) {
  if (!solid) return { x: [0.5, 0.5, 0], y: [0.5, 0, -0.5, 0], right: 1, up: 1 };
  const [ca, sa, ce, se] = [Math.cos(azimuth), Math.sin(azimuth), Math.cos(elevation), Math.sin(elevation)];
  return { x: [0.5, WIDE * ca, -WIDE * sa], y: [0.5 + (WIDE * TALL * ce) / 2, -WIDE * sa * se, -WIDE * ca * se, -WIDE * TALL * ce], right: sa, up: ca };
}

export const seen = ({ x, y }, p, q, height = 0) => [x[0] + x[1] * p + x[2] * q, y[0] + y[1] * p + y[2] * q + y[3] * height];

export class Surface {
  constructor() {
    this.canvas = document.createElement("canvas");
    this.side = 0;
  }

  fit(side) {
    if (side === this.side) return;
    Object.assign(this.canvas, { width: side, height: side });
    this.image = new ImageData(side, side);
    const pixels = new Uint32Array(this.image.data.buffer), count = side * side;
    Object.assign(this, { side, pixels, t: new Float32Array(count), band: new Uint8Array(count), shade: new Uint8Array(count), cell: new Int32Array(count) });
  }

  draw({ columns, rows, t, heights }, eye, solid) {
    const { side } = this, X = new Float32Array(t.length), Y = new Float32Array(t.length), { x, y } = eye;
    this.shade.fill(0);
    for (let j = 0, n = 0; j < rows; j++) {
      const q = (2 * j) / (rows - 1) - 1;
      for (let i = 0; i < columns; i++, n++) {
        const p = (2 * i) / (columns - 1) - 1;
        X[n] = side * (x[0] + x[1] * p + x[2] * q);
        Y[n] = side * (y[0] + y[1] * p + y[2] * q + y[3] * (solid ? heights[n] : 0));
      }
    }
    for (let row = 0; row < rows - 1; row++) {
      const j = eye.up > 0 ? row : rows - 2 - row;
      for (let column = 0; column < columns - 1; column++) {
        const i = eye.right > 0 ? column : columns - 2 - column, n = j * columns + i, m = n + columns;
        if (Number.isNaN(t[n] + t[n + 1] + t[m] + t[m + 1])) continue;
        const shade = solid ? light((heights[n + 1] - heights[n]) * columns, (heights[m] - heights[n]) * rows) : SHADES;
        this.triangle(X, Y, t, n, n + 1, m, shade, n);
        this.triangle(X, Y, t, m + 1, m, n + 1, shade, n);
      }
    }
    this.paint();
  }

  triangle(X, Y, T, a, b, c, shade, cell) {
    const { side } = this, x0 = X[a], y0 = Y[a], x1 = X[b], y1 = Y[b], x2 = X[c], y2 = Y[c], area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0);
    if (!area) return;
    const left = Math.max(Math.ceil(Math.min(x0, x1, x2) - 0.5), 0), right = Math.min(Math.floor(Math.max(x0, x1, x2) - 0.5), side - 1);
    const top = Math.max(Math.ceil(Math.min(y0, y1, y2) - 0.5), 0), bottom = Math.min(Math.floor(Math.max(y0, y1, y2) - 0.5), side - 1);
    const ux = (y1 - y2) / area, uy = (x2 - x1) / area, vx = (y2 - y0) / area, vy = (x0 - x2) / area;
    for (let row = top; row <= bottom; row++) {
      let u = ux * (left + 0.5 - x2) + uy * (row + 0.5 - y2), v = vx * (left + 0.5 - x2) + vy * (row + 0.5 - y2);
      for (let n = row * side + left, end = row * side + right; n <= end; n++, u += ux, v += vx) {
        if (u < -1e-4 || v < -1e-4 || u + v > 1.0001 || this.shade[n]) continue;
        const value = u * T[a] + v * T[b] + (1 - u - v) * T[c];
        this.t[n] = value;
        this.band[n] = value * BANDS;
        this.shade[n] = shade;
        this.cell[n] = cell;
      }
    }
  }

  // The line between two bands is darker.
  paint() {
    const { side, pixels, t, band, shade } = this, last = pixels.length - side - 1;
    pixels.fill(0);
    for (let n = 0; n < pixels.length; n++) {
      const own = shade[n];
      if (!own) continue;
      const edge = n < last && ((shade[n + 1] && band[n + 1] !== band[n]) || (shade[n + side] && band[n + side] !== band[n]));
      pixels[n] = TABLE[(Math.max(own - 1 - (edge ? DARKER : 0), 0) << 8) | (t[n] * 255)];
    }
    this.canvas.getContext("2d").putImageData(this.image, 0, 0);
  }

  // The grid's point, [i, j], that is drawn at a place in a picture of side 1; null where none is.
  at([u, v], { columns }) {
    const n = Math.floor(v * this.side) * this.side + Math.floor(u * this.side);
    return u >= 0 && u < 1 && this.shade[n] ? [this.cell[n] % columns, Math.floor(this.cell[n] / columns)] : null;
  }
}

// The shade of a slope, lit from the left and from behind the reader.
function light(right, up) {
  const length = Math.hypot(right, up, 2), lit = (-0.5 * right - 0.4 * up + 0.77 * 2) / length;
  return 1 + Math.round((SHADES - 1) * Math.min(Math.max(0.35 + 0.65 * lit, 0), 1));
}
