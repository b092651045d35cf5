// A loss that only the kernel can compute, from a grid of its values.

import { between } from "../shared/drawing.js";

// `grid`: { values, n, window }, row by row from below. Between its points the loss is bilinear.
export function fromGrid(grid) {
  const unknown = () => [NaN, NaN, NaN];
  if (!grid) return { loss: () => NaN, gradient: unknown, hessian: unknown };
  const { values, n, window: [x0, x1, y0, y1] } = grid;
  const loss = (x, y) => {
    const u = between(((x - x0) / (x1 - x0)) * (n - 1), 0, n - 1.001), v = between(((y - y0) / (y1 - y0)) * (n - 1), 0, n - 1.001);
    const i = Math.floor(u), j = Math.floor(v), at = j * n + i, a = u - i, b = v - j;
    return (1 - b) * ((1 - a) * values[at] + a * values[at + 1]) + b * ((1 - a) * values[at + n] + a * values[at + n + 1]);
  };
  return { loss, gradient: unknown, hessian: unknown };
}
