// Strokes and scales that the explorers' pages share.

// A canvas as sharp as the screen; its pen counts in CSS pixels.
export function blank(width, height) {
  const made = document.createElement("canvas"), ratio = window.devicePixelRatio || 1;
  Object.assign(made, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
  made.getContext("2d").scale(ratio, ratio);
  return made;
}

export function picture(image) {
  const made = document.createElement("canvas");
  Object.assign(made, { width: image.width, height: image.height });
  made.getContext("2d").putImageData(image, 0, 0);
  return made;
}

// Whether the n-th point of a picture lies in another band than its right or its lower neighbor.
export const onEdge = (band, n, width) => (n + 1) % width && n + width < band.length && (band[n] !== band[n + 1] || band[n] !== band[n + width]);

// Through points; where one is null there is a gap.
export function line(c, points, style, width = 2, dash = []) {
  c.beginPath();
  let pen = false;
  for (const p of points) {
    if (p) pen ? c.lineTo(...p) : c.moveTo(...p);
    pen = Boolean(p);
  }
  Object.assign(c, { strokeStyle: style, lineWidth: width });
  c.setLineDash(dash);
  c.stroke();
  c.setLineDash([]);
}

export const dot = (c, point, ...look) => dots(c, [point], ...look);

export function dots(c, points, radius, fill, ring) {
  c.beginPath();
  for (const [x, y] of points) {
    c.moveTo(x + radius, y);
    c.arc(x, y, radius, 0, 7);
  }
  if (fill) Object.assign(c, { fillStyle: fill }) && c.fill();
  if (ring) Object.assign(c, { strokeStyle: ring, lineWidth: 1.5 }) && c.stroke();
}

// The outline of an arrow's end.
export function wedge(c, [u, v], angle, size) {
  c.beginPath();
  c.moveTo(u, v);
  for (const turn of [-0.45, 0.45]) c.lineTo(u - size * Math.cos(angle + turn), v - size * Math.sin(angle + turn));
  c.closePath();
}

// Round numbers that divide [low, high] into two to five parts.
export function ticks(low, high) {
  const step = [1, 2, 5, 10].map((m) => m * 10 ** Math.floor(Math.log10((high - low) / 3))).find((s) => (high - low) / s < 5);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => (first + i) * step);
}

export const nearest = (values, value) => values.reduce((best, v, i) => (Math.abs(v - value) < Math.abs(values[best] - value) ? i : best), 0);
