// The pictures: a panel a network, or all as lines in one; and what lies on them.

import { dot, line, nearest, ticks, wedge } from "../shared/canvas.js";
import { FONT, between, words } from "../shared/drawing.js";
import { QUANTITIES, color, marks, scale, valueOf } from "./scale.js";
import { seen } from "./surface.js";

export const REACH = 10; // px: what a pointer still hits
const HEAD = 46, LEFT = 40, TOP = 36, BOTTOM = 50, GAP = 10, SMALLEST = 190, LARGEST = 430, PROFILE = 330;
const TALLEST = 1.3; // of a point over the surface, in heights of the scale; a higher one is left out
const OUTLINE = 96, FAINT = 0.25;

// Where the panels lie in a picture of this width, and its height.
export function arrange(nets, across, mode) {
  if (mode === "profile") return { boxes: [{ x: LEFT + 10, y: 26, wide: across - LEFT - 120, tall: PROFILE - 74 }], height: PROFILE };
  const columns = between(Math.floor(across / (SMALLEST + LEFT + GAP)), 1, Math.max(nets.length, 1)), step = across / columns;
  const size = Math.floor(Math.min(step - LEFT - GAP, LARGEST)), tall = TOP + size + BOTTOM;
  const boxes = nets.map((_, i) => ({ x: Math.round((i % columns) * step) + LEFT, y: HEAD + TOP + Math.floor(i / columns) * tall, size }));
  return { boxes, height: HEAD + tall * Math.max(Math.ceil(nets.length / columns), 1) };
}

function write(c, text, x, y, { align = "left", size = 12, weight = 400, most } = {}) {
  Object.assign(c, { font: `${weight} ${size}px ${FONT}`, textAlign: align, textBaseline: "alphabetic" });
  c.fillText(text, x, y, most);
}

function soft(c, points, ink) {
  c.globalAlpha = FAINT;
  line(c, points, ink, 1);
  c.globalAlpha = 1;
}

// Readable on every colour of the scale.
function haloed(c, points, style, halo, width, dash = []) {
  line(c, points, halo, width + 2.4, dash);
  line(c, points, style, width, dash);
}

function head(c, [x, y], [u, v], fill, ring, size) {
  if (Math.hypot(u - x, v - y) < size) return dot(c, [u, v], 3.2, fill, ring);
  wedge(c, [u, v], Math.atan2(v - y, u - x), size);
  Object.assign(c, { fillStyle: fill, strokeStyle: ring, lineWidth: 1.2 });
  c.stroke();
  c.fill();
}

export const titleOf = ({ quantity, scale: { kind } }) => QUANTITIES[quantity] + ({ log: ", logarithmic", root: ", by its square root" }[kind] ?? "");

// ---- what changes with the plane, the view and the size ------------------------------------------

export function drawUnder(c, scene, across) {
  c.fillStyle = scene.theme.inkText;
  if (!scene.nets.length) return write(c, "The first picture is being computed.", LEFT, HEAD, { size: 14 });
  if (scene.mode === "profile") return drawProfile(c, scene);
  bar(c, scene, across);
  for (const panel of scene.panels) frame(c, panel, scene);
}

// The colours, from the lowest to the highest value.
function bar(c, { scale, quantity, theme }, across) {
  const wide = Math.min(across - LEFT - GAP, 520);
  write(c, titleOf({ quantity, scale }), LEFT, 13, { weight: 600, most: across - LEFT });
  const shades = c.createLinearGradient(LEFT, 0, LEFT + wide, 0);
  for (let i = 0; i <= 20; i++) shades.addColorStop(i / 20, `rgb(${color(i / 20).map(Math.round).join(",")})`);
  c.fillStyle = shades;
  c.fillRect(LEFT, 19, wide, 10);
  c.fillStyle = theme.inkText;
  for (const v of marks(scale)) write(c, words(v), between(LEFT + wide * scale(v), LEFT + 4, LEFT + wide - 4), 42, { align: "center", size: 11 });
}

function frame(c, { net, box: { x, y, size }, grid, surface }, { half, solid, theme }) {
  c.fillStyle = theme.inkText;
  write(c, net.name, x + 14, y - 18, { size: 14, weight: 600, most: size - 14 });
  write(c, `loss ${words(net.start[0] ?? NaN)}, accuracy ${words(net.start[1] ?? NaN)}`, x, y - 4, { size: 12, most: size });
  if (grid && !solid) c.drawImage(surface.canvas, x, y, size, size);
  const unit = Math.abs(net.unit - 1) < 1e-3 ? "" : `; 1 is a length of ${words(net.unit)}`;
  write(c, `${solid ? "a" : "a →"}  ${net.labels[0]}${unit}`, x, y + size + 30, { most: size });
  write(c, `${solid ? "b" : "b ↑"}  ${net.labels[1]}`, x, y + size + 45, { most: size });
  if (solid) return;
  soft(c, [[x, y], [x + size, y], [x + size, y + size], [x, y + size], [x, y]], theme.inkText);
  for (const v of [-half, -half / 2, 0, half / 2, half]) {
    write(c, words(v), x + ((v / half + 1) / 2) * size, y + size + 14, { align: "center", size: 11 });
    write(c, words(v), x - 5, y + ((1 - v / half) / 2) * size + 4, { align: "right", size: 11 });
  }
}

// What turns: the floor, and the surface over it.
function turned(c, { box: { x, y, size }, grid, surface, eye }, { half, theme }) {
  if (!grid) return;
  const corner = (p, q) => seen(eye, p, q).map((v, i) => [x, y][i] + v * size);
  soft(c, [[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]].map(([p, q]) => corner(p, q)), theme.inkText);
  c.drawImage(surface.canvas, x, y, size, size);
  c.fillStyle = theme.inkText;
  const label = (text, p, q) => write(c, text, ...corner(p, q), { align: "center", size: 11 });
  label("a", 0, -1.22);
  label("b", -1.22, 0);
  for (const v of [-1, 1]) {
    label(words(v * half), v * 0.9, -1.14);
    label(words(v * half), -1.16, v * 0.9);
  }
}

// Lines of all networks in one; the scale is that of the lines, the paths and the climbs.
function drawProfile(c, scene) {
  const { nets, half, theme, colors, panels: [{ box: { x, y, wide, tall } }], at, own } = scene;
  write(c, titleOf({ ...scene, scale: own }), 4, 14, { weight: 600 });
  for (const v of marks(own)) {
    const [, level] = at(0, v);
    soft(c, [[x, level], [x + wide, level]], theme.inkText);
    write(c, words(v), x - 6, level + 4, { align: "right", size: 11 });
  }
  for (const v of ticks(-half, half)) write(c, words(v), at(v, own.low)[0], y + tall + 15, { align: "center", size: 11 });
  const name = nets[0]?.labels[0] ?? "";
  write(c, `a →  ${name}${nets.some((net) => Math.abs(net.unit - 1) > 1e-3) ? ", in its own length" : ""}`, x, y + tall + 34, { most: wide });
  let lowest = -Infinity;
  const ends = nets.filter((net) => net.line).map((net) => {
    const points = net.line.a.map((a, i) => at(a, valueOf(net, scene.quantity, net.line.loss[i], net.line.accuracy[i])));
    line(c, points, colors[net.name], 2.4);
    return [net, points.findLast(Boolean) ?? at(half, own.low)];
  });
  for (const [net, end] of ends.sort((p, q) => p[1][1] - q[1][1])) {
    lowest = Math.max(lowest + 15, end[1] + 4);
    c.fillStyle = colors[net.name];
    write(c, net.name, x + wide + 6, lowest, { weight: 600, most: 100 });
  }
}

// The scale and the places of a profile: over the lines, and what of paths and climbs is drawn.
export function profileOf({ nets, half, quantity, layers, climb }, { x, y, wide, tall }) {
  const values = nets.flatMap((net) => {
    const rows = [...(layers.includes("path") ? net.path : []), ...((layers.includes("climb") && climb(net)) || [])].filter((row) => Math.abs(row[0]) <= half);
    const all = [...(net.line ? net.line.loss.map((loss, i) => [loss, net.line.accuracy[i]]) : []), ...rows.map((row) => row.slice(2, 4))];
    return all.map((pair) => valueOf(net, quantity, ...pair));
  }).filter((v) => v !== null && v !== undefined);
  const low = values.length ? Math.min(...values) : 0, high = Math.max(...values, low + 1e-6);
  const own = scale(low, high, quantity === "rise" ? "" : quantity); // not its root: a curve keeps its shape
  return { own, at: (a, v) => (v === null ? null : [x + ((a / half + 1) / 2) * wide, y + tall * (0.97 - 0.94 * own(v))]) };
}

// ---- what follows k, ρ and the read-out -----------------------------------------------------------

// t of the plane between its grid's points; NaN where one of them isn't finite.
export function levelAt({ columns, rows, heights }, p, q) {
  const place = (v, n) => between(((v + 1) / 2) * (n - 1), 0, n - 1.0001), u = place(p, columns), v = place(q, rows), i = u | 0, j = v | 0, n = j * columns + i;
  return (1 - v + j) * ((1 - u + i) * heights[n] + (u - i) * heights[n + 1]) + (v - j) * ((1 - u + i) * heights[n + columns] + (u - i) * heights[n + columns + 1]);
}

// Returns the spots that have words of their own, and where ρ is held.
export function drawOver(c, scene) {
  const spots = [];
  for (const panel of scene.panels) {
    const { net, box: { x, y, size, wide = size, tall = size } } = panel;
    if (net) dot(c, [x + 5, y - 23], 4.5, scene.colors[net.name]);
    else soft(c, [[x, y], [x + wide, y], [x + wide, y + tall], [x, y + tall], [x, y]], scene.theme.inkText);
    if (scene.solid) turned(c, panel, scene);
    c.save();
    c.beginPath();
    c.rect(x, y, wide, tall);
    if (!scene.solid) c.clip();
    for (const one of net ? [net] : scene.nets) if (panel.grid || (panel.profile && one.line)) drawNet(c, one, panel, scene, spots);
    c.restore();
  }
  return { spots, grip: gripOf(scene) };
}

function drawNet(c, net, panel, scene, spots) {
  const { layers, roles, colors, theme } = scene, { profile } = panel, own = profile && colors[net.name];
  if (layers.includes("ball")) ball(c, net, panel, scene);
  const places = (what, rows) => {
    const points = rows.map((row) => place(net, panel, scene, row));
    rows.forEach((row, i) => points[i] && inside(scene, panel, row) && spots.push({ at: points[i], words: `${net.name}, ${what} ${i}\nloss ${told(row[2])}, accuracy ${told(row[3])}\n${words(row[4])} off the plane, ${words(row[5])} from the weights` }));
    return points;
  };
  if (layers.includes("path") && net.path.length) {
    const points = places("training path, point", net.path), style = own || "white";
    profile ? line(c, points, style, 1, [2, 3]) : haloed(c, points, style, "rgba(0,0,0,0.7)", 1.5);
    for (const p of points) if (p) dot(c, p, 2.5, style, "rgba(0,0,0,0.7)");
  }
  const climb = layers.includes("climb") && scene.climb(net);
  if (!climb) return;
  const points = places("climb, step", climb);
  profile ? line(c, points, own, 1.2) : haloed(c, points, roles.ascent, theme.paperText, 2.2);
  points.forEach((p, i) => i && p && points[i - 1] && head(c, points[i - 1], p, roles.ascent, own || theme.paperText, profile ? 8 : 10));
  if (points[0]) dot(c, points[0], 4.5, theme.paperText, theme.inkText);
}

const inside = ({ half }, { profile }, [a, b]) => Math.abs(a) <= half * 1.0001 && (profile || Math.abs(b) <= half * 1.0001);

// Where a point of a climb or a path is drawn, at its own height; null where it isn't.
function place(net, panel, scene, row) {
  const v = valueOf(net, scene.quantity, row[2], row[3]);
  if (v === null || v === undefined) return null;
  if (panel.profile) return scene.at(row[0], v);
  const t = Math.max(scene.scale(v), 0), height = scene.scale.kind === "root" ? t * t : t;
  return scene.solid && (height > TALLEST || !inside(scene, panel, row)) ? null : placeOf(panel, scene, row[0], row[1], height);
}

// The cut of ‖ε‖ ≤ ρ with the plane, and dotted that of kρ: circles, as a length is one everywhere.
function ball(c, net, panel, scene) {
  const { k, rho, solid, theme, roles, colors } = scene, { box } = panel;
  for (const [radius, dash] of [[rho, []], ...(k > 1 ? [[k * rho, [3, 4]]] : [])]) {
    const reach = radius / net.unit;
    if (panel.profile) for (const side of [-1, 1]) {
      const [u] = scene.at(side * reach, scene.own.low);
      line(c, [[u, box.y], [u, box.y + box.tall]], colors[net.name], 1.2, dash.length ? dash : [8, 3]);
    } else {
      const ring = Array.from({ length: OUTLINE + 1 }, (_, i) => [reach * Math.cos((2 * Math.PI * i) / OUTLINE), reach * Math.sin((2 * Math.PI * i) / OUTLINE)]);
      haloed(c, ring.map((p) => (solid && !inside(scene, panel, p) ? null : placeOf(panel, scene, ...p))), roles.ascent, theme.paperText, dash.length ? 1.4 : 2, dash);
    }
  }
}

const told = (v) => words(v ?? NaN);

// Where a point of the plane lies in the picture; on the surface where no height is given.
export function placeOf({ box, grid, eye }, { half, solid }, a, b, height) {
  const p = a / half, q = b / half, on = solid ? height ?? levelAt(grid, between(p, -1, 1), between(q, -1, 1)) : 0;
  return seen(eye, p, q, on || 0).map((v, i) => [box.x, box.y][i] + v * box.size);
}

// The grip of the ball is right of the first panel's middle, never nearer than a hand can hold.
function gripOf(scene) {
  const { panels: [panel], half, rho, solid, layers } = scene, net = panel?.net ?? scene.nets.find(({ line }) => line);
  if (!panel || !net || solid || !layers.includes("ball") || (!panel.profile && !panel.grid)) return null;
  const { x, y, size, wide = size, tall = size } = panel.box, reach = ((rho / net.unit / half) * wide) / 2;
  return [x + wide / 2 + between(reach, 26, wide / 2 - 8), y + tall / 2];
}

export function drawGrip(c, at, { roles, theme }) {
  Object.assign(c, { fillStyle: roles.ascent, strokeStyle: theme.paperText, lineWidth: 1.5 });
  c.fillRect(at[0] - 5, at[1] - 5, 10, 10);
  c.strokeRect(at[0] - 6, at[1] - 6, 12, 12);
}

// A cross on each panel at one place of all planes.
export function drawProbe(c, scene, [p, q]) {
  const { half, theme, panels } = scene;
  return panels.map((panel) => {
    const { x, y, wide, tall } = panel.box, place = panel.profile ? [x + ((p + 1) / 2) * wide, y + tall / 2] : panel.grid ? placeOf(panel, scene, p * half, q * half) : null;
    if (!place) return null;
    const ends = panel.profile ? [[[place[0], y], [place[0], y + tall]]] : [[[place[0] - 8, place[1]], [place[0] + 8, place[1]]], [[place[0], place[1] - 8], [place[0], place[1] + 8]]];
    for (const points of ends) haloed(c, points, theme.inkText, theme.paperText, 1.6);
    return place;
  });
}

// Loss and accuracy at the evaluated point nearest to a place of the plane, or of the line.
export function readAt(net, { half, mode, quantity }, p, q) {
  const profile = mode === "profile", from = profile ? net.line : net.plane;
  if (!from) return "";
  const i = nearest(from.a, p * half), j = profile ? 0 : nearest(from.b, q * half), loss = profile ? from.loss[i] : from.loss[j][i], accuracy = profile ? from.accuracy[i] : from.accuracy[j][i];
  const rise = quantity === "rise" ? `rise ${told(valueOf(net, quantity, loss, accuracy))}, ` : "";
  return `${net.name}: ${rise}loss ${told(loss)}, accuracy ${told(accuracy)}`;
}

export const placeInWords = ({ half, mode }, p, q) => `a ${words(p * half)}${mode === "profile" ? "" : `, b ${words(q * half)}`}`;
