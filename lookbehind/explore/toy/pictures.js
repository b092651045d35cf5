// The three pictures: the map with its paths, one outer step under the lens, and the timeline.

import { dot, dots, line, ticks } from "../shared/canvas.js";
import { FONT, Labels, arrow, between, drawGround, project, scaleBar, spanOf, star, words } from "../shared/drawing.js";

const AWAY = 5000; // px outside which nothing is drawn

// `scene`: toy, runs, eye (the run under the lens), t, start, rho, colors, roles, theme, span.

export function mapView({ window: [x0, x1, y0, y1] }, width, height) {
  return { x0, x1, y0, y1, width, height };
}

function axes(c, view, ink) {
  Object.assign(c, { fillStyle: ink, font: `12px ${FONT}`, textAlign: "left", textBaseline: "alphabetic" });
  const { x0, x1, y0, y1, width, height } = view;
  for (const x of ticks(x0, x1)) {
    const [u] = project(view, [x, y0]);
    if (u < 30 || u > width - 30) continue;
    line(c, [[u, height], [u, height - 5]], ink, 1);
    c.fillText(words(x), u - 3, height - 8);
  }
  for (const y of ticks(y0, y1)) {
    const [, v] = project(view, [x0, y]);
    if (v < 24 || v > height - 24) continue;
    line(c, [[0, v], [5, v]], ink, 1);
    c.fillText(words(y), 8, v + 4);
  }
  c.fillText("x", width - 12, height - 6);
  c.fillText("y", 4, 13);
}

// What lies under the paths, drawn once a loss: shades (where no basins lie there), lines, axes.
export function drawUnder(pad, toy, span, theme, shades = true) {
  const view = mapView(toy, pad.width, pad.height), c = pad.clear();
  drawGround(c, toy.value, view, span, theme, { shades });
  axes(c, view, theme.inkText);
}

// A step from outside to outside is left out: methods that diverge would hatch the map.
function trail(c, points, { width, height }, color, strong) {
  const out = ([u, v]) => u < 0 || v < 0 || u > width || v > height, near = ([u, v]) => Math.abs(u) < AWAY && Math.abs(v) < AWAY;
  c.beginPath();
  points.slice(1).forEach((p, t) => {
    if ((out(p) && out(points[t])) || !near(p) || !near(points[t])) return;
    c.moveTo(...points[t]);
    c.lineTo(...p);
  });
  Object.assign(c, { strokeStyle: color, lineWidth: strong ? 2.6 : 1.9, lineCap: "round" });
  c.stroke();
  dots(c, points.filter((p) => !out(p)), 2, color);
}

function minima(c, scene, view, labels) {
  const { toy, theme } = scene, sharp = toy.stars.map((p) => toy.sharpness(p)), least = Math.min(...sharp);
  toy.stars.forEach((p, i) => {
    const at = project(view, p), flat = toy.stars.length === 1 || sharp[i] < least + 1e-9;
    star(c, at, theme.inkText, theme.paperText);
    labels.keepFree(at[0] - 9, at[1] - 9, 18, 18);
    scene.starLabels.push([`${flat ? toy.flattest : "minimum"}, λ ${words(sharp[i], 2)}`, at, theme.inkText, { weight: 400, size: 12, gap: 12 }]);
  });
}

// The reach of one climb step around the weights at t, as half axes in units of the weights.
export function reach({ eye, t, rho }) {
  const [x, y] = eye.slow[Math.min(t, eye.slow.length - 1)], adaptive = eye.setting.method.includes("ASAM");
  return { at: [x, y], a: rho * (adaptive ? Math.abs(x) + 0.01 : 1), b: rho * (adaptive ? Math.abs(y) + 0.01 : 1), unit: adaptive ? Math.abs(x) + 0.01 : 1 };
}

function ring(c, scene, view) {
  const { at, a, b } = reach(scene), [u, v] = project(view, at), sx = view.width / (view.x1 - view.x0), sy = view.height / (view.y1 - view.y0);
  const color = scene.roles.ascent, grip = [u + Math.max(a * sx, 26), v];
  c.beginPath();
  c.ellipse(u, v, Math.max(a * sx, 2), Math.max(b * sy, 2), 0, 0, 7);
  Object.assign(c, { strokeStyle: color, lineWidth: 2 });
  c.stroke();
  if (a * sx < 24) line(c, [[u + a * sx, v], grip], color, 1, [2, 2]);
  Object.assign(c, { fillStyle: color, strokeStyle: scene.theme.paperText });
  c.fillRect(grip[0] - 5, grip[1] - 5, 10, 10);
  c.strokeRect(grip[0] - 6, grip[1] - 6, 12, 12);
  return grip;
}

// Where a path ends, or crosses the rim of the map.
function exit(run, view) {
  if (run.left === null) return project(view, run.slow.at(-1));
  const { width, height } = view, [u, v] = project(view, run.slow[run.left - 1]), next = run.slow[run.left];
  if (!next) return [u, v];
  const [x, y] = project(view, next).map((w, i) => w - [u, v][i]);
  const room = [[x, x > 0 ? width - u : -u], [y, y > 0 ? height - v : -v]].map(([way, rim]) => (way ? rim / way : Infinity));
  const share = Math.max(Math.min(...room, 1), 0);
  return [u + share * x, v + share * y];
}

// Returns where the handles lie: the start, and the grip of the ring (null where ρ moves nothing).
export function drawMap(pad, scene) {
  const { width, height } = pad, view = mapView(scene.toy, width, height), { theme } = scene, c = pad.clear();
  const labels = new Labels(c, width, height, theme.paperText), start = project(view, scene.start);
  labels.keepFree(start[0] - 9, start[1] - 9, 18, 18);
  scene.starLabels = [];
  minima(c, scene, view, labels);
  for (const run of scene.runs) trail(c, run.slow.map((p) => project(view, p)), pad, scene.colors[run.setting.method], run === scene.eye);
  if (scene.waiting) return { start, grip: null };
  const grip = scene.ring ? ring(c, scene, view) : null;
  if (grip) labels.keepFree(grip[0] - 7, grip[1] - 7, 14, 14);
  const ends = scene.runs.map((run) => [run, exit(run, view), run.left === null]);
  for (const [run, at, stays] of ends) {
    if (stays) dot(c, at, 6, scene.colors[run.setting.method], theme.paperText);
    labels.keepFree(at[0] - 6, at[1] - 6, 12, 12);
  }
  labels.put("start", start, theme.inkText, { weight: 400, size: 12, gap: 12, sides: [[0, -1], [0, 1], [1, 0], [-1, 0], [1, -1], [-1, 1]] });
  for (const [run, at, stays] of ends) labels.put(run.setting.method + (stays ? "" : ` left at step ${run.left}`), at, scene.colors[run.setting.method]);
  for (const label of scene.starLabels) labels.put(...label);
  dot(c, start, 8, theme.paperText, theme.inkText);
  dot(c, start, 3, theme.inkText);
  return { start, grip };
}

// ---- the lens ----------------------------------------------------------------------------------

// Around the arrows, in jumps: while they change a little, the ground under them stays.
export function lensView(arrows, width, height) {
  const ends = arrows.flatMap(({ from, to, across, gradient }) => [from, to, ...(across ? [across] : []), ...(gradient ? [gradient.to] : [])]);
  const spread = [0, 1].map((i) => ends.reduce(([low, high], p) => [Math.min(low, p[i]), Math.max(high, p[i])], [Infinity, -Infinity]));
  const [dx, dy] = spread.map(([low, high]) => high - low), ratio = height / width;
  const r = 1.25 ** Math.ceil(Math.log(0.68 * Math.max(dx, dy / ratio, 1e-6)) / Math.log(1.25));
  const [x, y] = spread.map(([low, high], i) => Math.round((4 * (low + high)) / 2 / (i ? r * ratio : r)) * (i ? r * ratio : r) / 4);
  return { x0: x - r, x1: x + r, y0: y - r * ratio, y1: y + r * ratio, width, height };
}

export function drawLensUnder(pad, scene, view, lines) {
  drawGround(pad.clear(), scene.toy.value, view, spanOf(scene.toy.value, view, 15), scene.theme, { cell: lines ? 5 : 10, lines });
}

const NAMES = { ascent: "climb", descent: "descent", gradient: "−lr ∇L", interpolation: "α" };

// `phase`: how many arrows are drawn; the last one may be on its way. Returns the α handle's line.
export function drawLens(pad, scene, view, arrows, phase) {
  const { width, height } = pad, c = pad.clear(), { theme, roles } = scene;
  if (!view) return null;
  const at = (p) => project(view, p);
  const labels = new Labels(c, width, height, theme.paperText), last = {}, origin = at(arrows[0].from), whole = arrows.at(-1), end = at(whole.to);
  const passes = ([x, y], [u, v]) => [0.25, 0.5, 0.75].forEach((s) => labels.keepFree(x + s * (u - x) - 3, y + s * (v - y) - 3, 6, 6));
  if (whole.across) line(c, [origin, at(whole.across)], roles.interpolation, 1.5, [3, 3]);
  arrows.forEach(({ kind, from, to, gradient }, n) => {
    const share = between(phase - n, 0, 1);
    if (!share) return;
    const [p, q] = [at(from), at(to)], tip = [0, 1].map((i) => p[i] + share * (q[i] - p[i]));
    if (gradient && share === 1) arrow(c, at(gradient.from), at(gradient.to), roles.gradient, 1.5, [4, 3]);
    arrow(c, p, tip, roles[kind], kind === "interpolation" ? 4.5 : 2.5);
    passes(p, tip);
    if (kind !== "interpolation") dot(c, tip, 2.5, roles[kind]);
    last[kind] = tip;
    if (gradient && share === 1) last.gradient = at(gradient.to);
  });
  dot(c, origin, 5, theme.inkText, theme.paperText);
  labels.keepFree(origin[0] - 6, origin[1] - 6, 12, 12);
  labels.keepFree(width - 70, height - 30, 70, 30);
  if (whole.across) labels.keepFree(end[0] - 9, end[1] - 9, 18, 18);
  for (const [kind, tip] of Object.entries(last)) {
    const text = kind === "interpolation" ? `α = ${words(whole.alpha, 2)}` : NAMES[kind];
    labels.put(text, tip, roles[kind], { gap: kind === "interpolation" ? 14 : 9 });
  }
  labels.put("φ", origin, theme.inkText);
  scaleBar(c, view.x1 - view.x0, width, height, theme.inkText);
  if (!whole.across) return null;
  dot(c, end, 8, roles.interpolation, theme.paperText);
  return { from: origin, to: at(whole.across), at: end };
}

// ---- the timeline ------------------------------------------------------------------------------

const LEFT = 44, TOP = 10, BOTTOM = 20;

function heightOf(scene, kind, height) {
  const seen = scene.runs.flatMap((run) => values(run, kind).filter((v, t) => (run.left === null || t < run.left) && Number.isFinite(v)));
  const room = height - TOP - BOTTOM;
  if (kind === "loss") {
    const low = Math.log10(Math.max(Math.min(...seen.filter((v) => v > 0), 1), 1e-8)), high = Math.max(Math.log10(Math.max(...seen, 1e-8)), low + 1);
    const marks = Array.from({ length: Math.ceil(high) - Math.floor(low) + 1 }, (_, i) => Math.floor(low) + i), every = Math.ceil(marks.length / 4);
    return { y: (v) => TOP + room * between((high - Math.log10(Math.max(v, 1e-30))) / (high - low), 0, 1), marks: marks.filter((d, i) => i % every === 0 && d >= low && d <= high).map((d) => [10 ** d, d === 0 ? "1" : `1e${words(d)}`]) };
  }
  const low = Math.min(...seen, 0), high = Math.max(...seen, low + 0.1) * 1.04;
  return { y: (v) => TOP + room * between((high - v) / (high - low), 0, 1), marks: ticks(low, high).map((v) => [v, words(v)]) };
}

const values = (run, kind) => (kind === "loss" ? run.losses.slice(0, run.slow.length) : run.sharp);

// Returns the step at a place along the timeline.
export function drawTime(pad, scene, kind, steps) {
  const { width, height } = pad, c = pad.clear(), { theme } = scene;
  c.font = `600 12px ${FONT}`;
  const right = 16 + Math.max(...scene.runs.map((run) => c.measureText(run.setting.method).width), 40);
  const x = (t) => LEFT + (t / steps) * (width - LEFT - right), { y, marks } = heightOf(scene, kind, height);
  Object.assign(c, { font: `12px ${FONT}`, fillStyle: theme.inkText, textAlign: "right", textBaseline: "alphabetic" });
  for (const [value, text] of marks) {
    c.fillText(text, LEFT - 6, y(value) + 4);
    c.globalAlpha = 0.2;
    line(c, [[LEFT, y(value)], [x(steps), y(value)]], theme.inkText, 1);
    c.globalAlpha = 1;
  }
  c.textAlign = "center";
  for (const t of ticks(0, steps).filter(Number.isInteger)) c.fillText(t, x(t), height - 4);
  const ends = scene.runs.map((run) => {
    const shown = values(run, kind).slice(0, (run.left ?? steps) + 1), points = shown.map((v, t) => (Number.isFinite(v) ? [x(t), y(v)] : null));
    line(c, points, scene.colors[run.setting.method], run === scene.eye ? 2.6 : 1.9);
    return { run, at: points.findLast(Boolean) ?? [x(0), y(0)] };
  });
  label(c, ends, scene, x(steps) + 8, height);
  const eye = scene.eye, t = Math.min(scene.t, eye.slow.length - 1), value = values(eye, kind)[t];
  line(c, [[x(t), TOP - 4], [x(t), height - BOTTOM]], theme.inkText, 1.5);
  if (Number.isFinite(value)) dot(c, [x(t), y(value)], 6, scene.colors[eye.setting.method], theme.paperText);
  return (u) => between(Math.round(((u - LEFT) / (width - LEFT - right)) * steps), 0, steps - 1);
}

// Names at the ends of the lines, from above to below without overlap.
function label(c, ends, scene, x, height) {
  const sorted = [...ends].sort((a, b) => a.at[1] - b.at[1]), gap = 14;
  let lowest = 6;
  const rows = sorted.map(({ run, at }) => ({ run, at, y: (lowest = Math.max(lowest + gap, at[1] + 4)) }));
  let limit = height - 4;
  for (const row of [...rows].reverse()) limit = (row.y = Math.min(row.y, limit)) - gap;
  Object.assign(c, { font: `600 12px ${FONT}`, textAlign: "left" });
  for (const { run, at, y } of rows) {
    const color = scene.colors[run.setting.method];
    c.fillStyle = color;
    c.fillText(run.setting.method, x + 6, y);
    if (run.left === null) line(c, [[at[0] + 2, at[1]], [x + 4, y - 4]], color, 1);
  }
}

