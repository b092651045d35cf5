// Draws planes of the loss side by side. A climb for every k and ρ is in a table: a move looks it up.

import { blank, picture, onEdge, line, dot, wedge, ticks, nearest } from "../shared/canvas.js";

const VIRIDIS = ["440154", "482475", "414487", "355f8d", "2a788e", "21918c", "22a884", "44bf70", "7ad151", "bdda26", "fde725"]
  .map((hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16)));
const BANDS = 14, LEFT = 50, TOP = 40, BOTTOM = 38, GAP = 12, BAR = 74, LARGEST = 420, SMALLEST = 230, PROFILE = 340;
const NAMES = ["loss", "accuracy"], REACH = 9;
const TALLEST = 1.3;  // of a point above the surface, in heights of the scale; higher ones are left out

// ---- numbers -----------------------------------------------------------------------------------

const show = (v, digits = 3) => (v === null || v === undefined ? "not finite" : v === 0 ? "0"
  : Math.abs(v) < 1e-3 || Math.abs(v) >= 1e5 ? v.toExponential(1) : String(+v.toPrecision(digits))).replace("-", "−");

// Where a value stands between the lowest (0) and the highest (1) of all networks.
function scaleOf([low, high, log]) {
  const f = log ? (v) => Math.log(Math.max(v, low)) : (v) => v;
  return Object.assign((v) => (v === null ? null : (f(v) - f(low)) / (f(high) - f(low) || 1)), { low, high, log });
}

function marks({ low, high, log }) {
  if (!log) return ticks(low, high);
  const all = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.log10(high); e++) for (const m of [1, 2, 5]) all.push(m * 10 ** e);
  const inside = all.filter((v) => v >= low && v <= high), whole = inside.filter((v) => /^1/.test(v.toExponential()));
  return inside.length <= 6 || whole.length < 2 ? inside : whole;
}

function color(t) {
  if (t === null) return [128, 128, 128];
  const at = Math.min(Math.max(t, 0), 0.9999) * (VIRIDIS.length - 1), i = at | 0;
  return VIRIDIS[i].map((v, c) => v + (at - i) * (VIRIDIS[i + 1][c] - v));
}

const css = (c, by = 1) => `rgb(${c.map((v) => Math.round(v * by)).join(",")})`;

// The plane at (a, b) between its grid points, on the scale; null where one of them isn't finite.
function between({ a, b }, rows, [x, y]) {
  const place = (v, axis) => Math.min(Math.max(((v - axis[0]) / (axis.at(-1) - axis[0])) * (axis.length - 1), 0), axis.length - 1.0001);
  const u = place(x, a), v = place(y, b), i = u | 0, j = v | 0, p = u - i, q = v - j;
  const four = [rows[j][i], rows[j][i + 1], rows[j + 1][i], rows[j + 1][i + 1]];
  return four.includes(null) ? null : (1 - q) * ((1 - p) * four[0] + p * four[1]) + q * ((1 - p) * four[2] + p * four[3]);
}

// ---- strokes -----------------------------------------------------------------------------------

// Readable on every colour of the scale.
function haloed(c, points, style, halo, width, dash = []) {
  if (!dash.length) line(c, points, halo, width + 2);
  line(c, points, style, width, dash);
}

// The end of an arrow; a dot where the arrow is too short for one.
function head(c, [x, y], [u, v], fill, ring, size) {
  const angle = Math.atan2(v - y, u - x);
  if (Math.hypot(u - x, v - y) < size) return dot(c, [u, v], 3.2, fill, ring);
  wedge(c, [u, v], angle, size);
  Object.assign(c, { fillStyle: fill, strokeStyle: ring, lineWidth: 1.2 });
  c.stroke();
  c.fill();
}

function text(c, words, x, y, ink, { align = "left", size = 11, bold = false, turn = 0, most } = {}) {
  c.save();
  c.translate(x, y);
  c.rotate(turn);
  Object.assign(c, { fillStyle: ink, font: `${bold ? "bold " : ""}${size}px system-ui, sans-serif`, textAlign: align });
  c.fillText(words, 0, 0, most);
  c.restore();
}

// ---- one plane ---------------------------------------------------------------------------------

function contours(c, net, rows, { x, y, size }) {
  const n = Math.round(size), image = new ImageData(n, n), band = new Float32Array(n * n), half = net.plane.a.at(-1);
  for (let j = 0; j < n; j++) for (let i = 0; i < n; i++) {
    const t = between(net.plane, rows, [half * (((i + 0.5) / n) * 2 - 1), half * (1 - ((j + 0.5) / n) * 2)]);
    band[j * n + i] = t === null ? -1 : Math.floor(t * BANDS);
    color(t).forEach((v, k) => (image.data[4 * (j * n + i) + k] = v));
  }
  for (let m = 0; m < n * n; m++) {
    for (let k = 0; k < 3 && onEdge(band, m, n); k++) image.data[4 * m + k] *= 0.72;
    image.data[4 * m + 3] = 255;
  }
  c.drawImage(picture(image), x, y, size, size);
}

function surface(c, net, rows, at) {
  const { a, b } = net.plane, quads = [];
  for (let j = 0; j + 1 < b.length; j++) for (let i = 0; i + 1 < a.length; i++) {
    const four = [[i, j], [i + 1, j], [i + 1, j + 1], [i, j + 1]], heights = four.map(([p, q]) => rows[q][p]);
    if (heights.includes(null)) continue;
    const corners = four.map(([p, q], n) => at(a[p], b[q], heights[n]));
    quads.push([corners.reduce((sum, p) => sum + p[2], 0), corners, heights.reduce((sum, t) => sum + t, 0) / 4]);
  }
  for (const [, corners, t] of quads.sort((p, q) => q[0] - p[0])) {  // the farthest first
    c.beginPath();
    for (const [u, v] of corners) c.lineTo(u, v);
    c.closePath();
    Object.assign(c, { fillStyle: css(color(t)), strokeStyle: css(color(t), 0.75), lineWidth: 0.7 });
    c.fill();
    c.stroke();
  }
}

// ---- the view ----------------------------------------------------------------------------------

class View {
  constructor(model, el) {
    Object.assign(this, { model, azimuth: 0.6, elevation: 0.55, base: null, spots: [] });
    this.root = document.createElement("div");
    this.root.style.cssText = "position: relative; width: 100%; font: 12px/1.5 system-ui, sans-serif; color: var(--jp-ui-font-color1, CanvasText)";
    this.canvas = document.createElement("canvas");
    this.canvas.style.cssText = "display: block; max-width: none; outline-offset: -1px";
    this.canvas.tabIndex = 0;
    this.canvas.dataset.lmSuppressShortcuts = "true";  // else JupyterLab takes the arrow keys for itself
    this.words = document.createElement("div");
    this.tip = document.createElement("div");
    this.tip.style.cssText = "position: absolute; display: none; pointer-events: none; padding: 2px 6px; font-size: 11px; white-space: pre; z-index: 9;"
      + "background: var(--jp-layout-color1, Canvas); border: 1px solid var(--jp-border-color1, #999); border-radius: 3px";
    this.root.append(this.canvas, this.words, this.tip);
    el.append(this.root);
    this.listen();
    this.draw();
  }

  get(name) { return this.model.get(name); }

  title() { return NAMES[this.get("quantity")] + (this.scale.log ? " (log)" : ""); }

  listen() {
    const fresh = () => {
      this.base = null;
      this.draw();
    };
    const anew = ["scene", "mode", "quantity"], again = ["climbs", "k", "rho_index", "show_path", "show_climb", "show_ball"];
    for (const name of anew) this.model.on(`change:${name}`, fresh);
    for (const name of again) this.model.on(`change:${name}`, this.again = this.again || (() => this.draw()));
    this.themes = new MutationObserver(fresh);
    this.themes.observe(document.body, { attributes: true });
    this.sizes = new ResizeObserver(() => Math.abs(this.root.clientWidth - this.width) > 1 && fresh());
    this.sizes.observe(this.root);
    this.close = () => {
      for (const name of anew) this.model.off(`change:${name}`, fresh);
      for (const name of again) this.model.off(`change:${name}`, this.again);
      this.themes.disconnect();
      this.sizes.disconnect();
    };
    const turn = (right, up) => {
      this.azimuth += right;
      this.elevation = Math.min(Math.max(this.elevation + up, 0.05), Math.PI / 2);
      fresh();
    };
    let held = null;
    this.canvas.addEventListener("pointerdown", (event) => {
      if (this.get("mode") !== 2) return;
      held = [event.clientX, event.clientY];
      this.canvas.setPointerCapture(event.pointerId);
    });
    this.canvas.addEventListener("pointerup", () => (held = null));
    this.canvas.addEventListener("pointermove", (event) => {
      if (!held) return this.hover(event);
      turn((held[0] - event.clientX) / 120, (event.clientY - held[1]) / 120);
      held = [event.clientX, event.clientY];
    });
    this.canvas.addEventListener("pointerleave", () => (this.tip.style.display = "none"));
    this.canvas.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: [0.1, 0], ArrowRight: [-0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] }[event.key];
      if (!by || this.get("mode") !== 2) return;
      event.preventDefault();
      turn(...by);
    });
  }

  // The rows of a network's climb where the sliders stand; undefined until they were computed.
  climb(net) {
    const rho = this.get("radii")[this.get("rho_index")];
    return (this.get("climbs")[net.name] || {})[String(rho)]?.slice(0, this.get("k") + 1);
  }

  draw() {
    this.width = this.root.clientWidth;
    if (!this.width) return;
    const { networks = [] } = this.get("scene");
    this.ink = getComputedStyle(this.root).color;
    this.value = this.get("quantity") ? (row) => row[3] : (row) => row[2];
    this.canvas.style.cursor = this.get("mode") === 2 ? "grab" : "crosshair";
    this.canvas.style.touchAction = this.get("mode") === 2 ? "none" : "auto";
    this.spots = [];
    if (!this.base || !this.get("mode")) this.prepare(networks);
    const c = this.canvas.getContext("2d"), ratio = window.devicePixelRatio || 1;
    c.setTransform(1, 0, 0, 1, 0, 0);
    c.clearRect(0, 0, this.canvas.width, this.canvas.height);
    c.drawImage(this.base, 0, 0);
    c.scale(ratio, ratio);
    for (const panel of this.panels) this.overlay(c, panel);
    this.caption(networks);
    (window.__redraws = window.__redraws || []).push(performance.now());
  }

  // All that doesn't change with k and ρ, drawn once.
  prepare(networks) {
    const profile = !this.get("mode"), count = profile ? 1 : Math.max(networks.length, 1);
    const room = this.width - BAR, columns = Math.max(1, Math.min(count, Math.floor(room / SMALLEST)));
    const size = profile ? PROFILE - TOP - BOTTOM : Math.max(120, Math.min(LARGEST, room / columns) - LEFT - GAP);
    const step = size + LEFT + GAP, tall = size + TOP + BOTTOM, height = profile ? PROFILE : Math.ceil(count / columns) * tall;
    this.base = blank(this.width, height);
    if (this.canvas.width !== this.base.width || this.canvas.height !== this.base.height) {
      Object.assign(this.canvas, { width: this.base.width, height: this.base.height });
      Object.assign(this.canvas.style, { width: `${this.width}px`, height: `${height}px` });
    }
    const c = this.base.getContext("2d");
    if (!networks.length) {
      this.panels = [];
      c.strokeStyle = "rgba(128,128,128,0.5)";
      c.strokeRect(LEFT, TOP, size, size);
      return text(c, "Press Compute.", LEFT + size / 2, TOP + size / 2, this.ink, { align: "center", size: 13 });
    }
    this.scale = scaleOf(this.get("scene").ranges[NAMES[this.get("quantity")]]);
    if (profile) return this.profile(c, networks);
    this.panels = networks.map((net, i) => this.panel(c, net, { x: LEFT + (i % columns) * step, y: TOP + Math.floor(i / columns) * tall, size }));
    this.bar(c, { x: columns * step + 6, y: TOP, size });
  }

  panel(c, net, box) {
    const { x, y, size } = box, { half } = this.get("scene"), solid = this.get("mode") === 2, plane = net.plane;
    const rows = plane && plane[NAMES[this.get("quantity")]].map((row) => row.map(this.scale));
    text(c, net.name, x, y - 22, this.ink, { size: 13, bold: true, most: size });
    text(c, `loss ${show(net.start[0])}, accuracy ${show(net.start[1])}`, x, y - 7, this.ink, { most: size });
    const at = solid ? this.turned(box, half) : (a, b) => [x + ((a / half + 1) / 2) * size, y + ((1 - b / half) / 2) * size];
    if (rows && !solid) contours(c, net, rows, box);
    if (solid) this.floor(c, at, half);
    if (rows && solid) surface(c, net, rows, at);
    const [first, second] = net.labels;
    if (solid) {
      text(c, `a: ${first}`, x, y + size + 14, this.ink, { most: size });
      text(c, `b: ${second}`, x, y + size + 28, this.ink, { most: size });
    } else {
      c.strokeStyle = "rgba(128,128,128,0.5)";
      c.strokeRect(x, y, size, size);
      for (const v of [-half, -half / 2, 0, half / 2, half]) {
        text(c, show(v), at(v, 0)[0], y + size + 13, this.ink, { align: "center", size: 10 });
        text(c, show(v), x - 4, at(0, v)[1] + 3, this.ink, { align: "right", size: 10 });
      }
      text(c, `a: ${first}`, x + size / 2, y + size + 28, this.ink, { align: "center", most: size });
      text(c, `b: ${second}`, x - 36, y + size / 2, this.ink, { align: "center", turn: -Math.PI / 2, most: size });
    }
    return { net, box, rows, at, solid, level: (a, b) => (rows ? between(plane, rows, [a, b]) : 0) };
  }

  // Seen from a direction in parallel rays: [u, v, distance].
  turned({ x, y, size }, half) {
    const [ca, sa, ce, se] = [Math.cos(this.azimuth), Math.sin(this.azimuth), Math.cos(this.elevation), Math.sin(this.elevation)];
    return (a, b, t) => {
      const p = a / half, q = b / half, far = p * sa + q * ca, z = 1.3 * (t - 0.5);
      return [x + size * (0.5 + 0.35 * (p * ca - q * sa)), y + size * (0.5 - 0.35 * (far * se + z * ce)), far * ce - z * se];
    };
  }

  floor(c, at, half) {
    const grey = "rgba(128,128,128,0.6)", corner = (a, b) => at(a * half, b * half, 0).slice(0, 2);
    line(c, [corner(-1, -1), corner(1, -1), corner(1, 1), corner(-1, 1), corner(-1, -1)], grey, 1);
    const label = (words, a, b) => text(c, words, ...corner(a, b), this.ink, { align: "center", size: 10 });
    label("a", 0, -1.18);
    label("b", -1.18, 0);
    for (const v of [-1, 1]) {
      label(show(v * half), v * 0.9, -1.12);
      label(show(v * half), -1.14, v * 0.9);
    }
  }

  bar(c, { x, y, size }) {
    for (let i = 0; i < size; i++) {
      c.fillStyle = css(color(1 - i / size));
      c.fillRect(x, y + i, 12, 1.5);
    }
    for (const v of marks(this.scale)) text(c, show(v), x + 16, y + size * (1 - this.scale(v)) + 4, this.ink, { size: 10 });
    text(c, this.title(), x, y - 7, this.ink);
  }

  profile(c, networks) {
    const { half } = this.get("scene"), name = NAMES[this.get("quantity")];
    const box = { x: LEFT, y: TOP, wide: Math.min(this.width - LEFT - 14, 760), tall: PROFILE - TOP - BOTTOM };
    const rows = networks.flatMap((net) => [...((this.get("show_climb") && this.climb(net)) || []), ...(this.get("show_path") ? net.path : [])]);
    const lines = networks.flatMap((net) => (net.line ? net.line[name] : []));
    const values = [...lines, ...rows.filter((row) => Math.abs(row[0]) <= half).map(this.value)].filter((v) => v !== null);
    const { log, low: least } = this.scale, low = Math.max(Math.min(...values, this.scale.high), log ? least : -Infinity);
    const scale = scaleOf([low, Math.max(...values, low + 1e-9), log]);
    const at = (a, v) => (v === null ? null : [box.x + ((a / half + 1) / 2) * box.wide, box.y + box.tall * (0.97 - 0.94 * scale(v))]);
    for (const v of marks(scale)) {
      const [, y] = at(0, v);
      line(c, [[box.x, y], [box.x + box.wide, y]], "rgba(128,128,128,0.25)", 1);
      text(c, show(v), box.x - 5, y + 3, this.ink, { align: "right", size: 10 });
    }
    for (const v of [-half, -half / 2, 0, half / 2, half]) text(c, show(v), at(v, low)[0], box.y + box.tall + 13, this.ink, { align: "center", size: 10 });
    text(c, `a: ${networks[0].labels[0].replace(/, ‖.*/, "")}`, box.x + box.wide / 2, box.y + box.tall + 29, this.ink, { align: "center" });
    text(c, this.title(), box.x - 44, box.y - 8, this.ink);
    c.strokeStyle = "rgba(128,128,128,0.5)";
    c.strokeRect(box.x, box.y, box.wide, box.tall);
    let left = box.x + 30;
    for (const net of networks) {
      if (net.line) line(c, net.line.a.map((a, i) => at(a, net.line[name][i])), net.color, 2.5);
      line(c, [[left, 15], [left + 18, 15]], net.color, 3);
      text(c, net.name, left + 22, 19, this.ink, { size: 12 });
      left += 46 + c.measureText(net.name).width * 1.25;
    }
    this.panels = networks.map((net) => ({ net, box: { ...box, size: box.tall }, profile: true, at: (a, _, v) => at(a, v) }));
  }

  overlay(c, { net, box, at, solid, profile, level, rows }) {
    if (!profile && !rows) return;
    const { half } = this.get("scene"), rho = this.get("radii")[this.get("rho_index")], k = this.get("k");
    const inside = ([a, b]) => Math.abs(a) <= half * 1.0001 && (profile || Math.abs(b) <= half * 1.0001);
    const place = (row) => {
      const v = this.value(row), t = Math.max(this.scale(v) ?? 0, 0);
      if (v === null || (solid && (t > TALLEST || !inside(row)))) return null;
      return at(row[0], row[1], profile ? v : t).slice(0, 2);
    };
    const spot = (what, row, i) => {
      const p = place(row);
      if (p && inside(row)) this.spots.push({ p, words: `${net.name}, ${what} ${i}\nloss ${show(row[2])}, accuracy ${show(row[3])}\n${show(row[4])} off the plane, ${show(row[5])} from the weights` });
    };
    c.save();
    c.beginPath();
    c.rect(box.x, box.y, box.wide || box.size, box.tall || box.size);
    if (!solid) c.clip();
    if (this.get("show_ball")) for (const [radius, dash] of [[rho, []], ...(k > 1 ? [[k * rho, [3, 4]]] : [])]) {
      if (profile) for (const side of [-1, 1]) {
        const x = box.x + (((side * radius) / net.norm / half + 1) / 2) * box.wide;
        c.lineDashOffset = 5.5 * this.panels.findIndex((panel) => panel.net === net);  // colours take turns
        line(c, [[x, box.y], [x, box.y + box.tall]], net.color, 1.2, dash.length ? dash : [8, 3]);
      } else {
        const points = net.outline.map(([a, b]) => [a * radius, b * radius]).map((p) => (inside(p) || !solid ? at(...p, level(...p) ?? 0).slice(0, 2) : null));
        haloed(c, points, "white", "rgba(0,0,0,0.55)", 1.5, dash);
      }
    }
    if (this.get("show_path") && net.path.length) {
      const points = net.path.map(place), style = profile ? net.color : "white";
      if (profile) line(c, points, style, 1, [2, 3]);
      else haloed(c, points, style, "rgba(0,0,0,0.7)", 1.5);
      points.forEach((p) => p && dot(c, p, 2.5, style, "rgba(0,0,0,0.7)"));
      net.path.forEach((row, i) => spot("training path, point", row, i));
    }
    const climb = this.get("show_climb") && this.climb(net);
    if (climb) {
      const points = climb.map(place);
      haloed(c, points, profile ? net.color : this.get("scene").ascent, profile ? "rgba(0,0,0,0)" : "white", profile ? 1.2 : 2.2);
      const ring = profile ? net.color : "white";
      points.forEach((p, i) => i && p && points[i - 1] && head(c, points[i - 1], p, this.get("scene").ascent, ring, profile ? 8 : 10));
      if (points[0]) dot(c, points[0], 4.5, "white", "black");
      climb.forEach((row, i) => spot("climb, step", row, i));
    }
    c.restore();
  }

  caption(networks) {
    const rho = this.get("radii")[this.get("rho_index")], k = this.get("k");
    const lines = networks.map((net) => {
      const parts = [], climb = this.climb(net), last = climb?.at(-1);
      if (this.get("show_climb") && !climb) parts.push(`the climb at ρ = ${rho} is not computed yet`);
      if (this.get("show_climb") && last) parts.push(`${k} ascent step${k > 1 ? "s" : ""} of ρ = ${rho}: loss ${show(climb[0][2])} → ${show(last[2])}, `
        + `accuracy ${show(climb[0][3])} → ${show(last[3])}, at a distance of ${show(last[5])}, ${show(last[4])} off the plane`);
      if (this.get("show_path") && net.path.length) parts.push(`Training path: the plane holds ${show(100 * net.explained)} % of its squared distances`);
      return [net.color, parts.length ? `${net.name}: ${parts.join(". ")}.` : ""];
    }).filter(([, words]) => words);
    this.words.replaceChildren(...lines.map(([style, words]) => {
      const row = document.createElement("div"), mark = document.createElement("span");
      mark.style.color = style;
      mark.textContent = "● ";
      row.append(mark, words);
      return row;
    }));
  }

  hover(event) {
    const here = this.canvas.getBoundingClientRect(), [x, y] = [event.clientX - here.left, event.clientY - here.top];
    const distance = ({ p }) => Math.hypot(p[0] - x, p[1] - y);
    const spot = this.spots.filter((s) => distance(s) < REACH).sort((p, q) => distance(p) - distance(q))[0];
    const words = spot?.words || this.under(x, y);
    this.tip.style.display = words ? "block" : "none";
    if (!words) return;
    this.tip.textContent = words;
    const right = x + 14 + this.tip.offsetWidth > this.width;
    Object.assign(this.tip.style, { left: `${Math.max(0, right ? x - 14 - this.tip.offsetWidth : x + 14)}px`, top: `${y + 12}px` });
  }

  // Loss and accuracy at the nearest point that was evaluated.
  under(x, y) {
    const panel = this.panels.find(({ box }) => x >= box.x && x <= box.x + (box.wide || box.size) && y >= box.y && y <= box.y + (box.tall || box.size));
    if (!panel) return "";
    const { half } = this.get("scene"), { box, net, at, rows, solid } = panel;
    if (panel.profile) {
      const a = half * (((x - box.x) / box.wide) * 2 - 1), drawn = this.panels.filter((p) => p.net.line);
      return drawn.map(({ net: { name, line: l } }) => {
        const i = nearest(l.a, a);
        return `${name}: a ${show(l.a[i])}, loss ${show(l.loss[i])}, accuracy ${show(l.accuracy[i])}`;
      }).join("\n");
    }
    if (!rows) return "";
    const { a, b, loss, accuracy } = net.plane;
    let i = nearest(a, half * (((x - box.x) / box.size) * 2 - 1)), j = nearest(b, half * (1 - ((y - box.y) / box.size) * 2));
    if (solid) {
      let best = REACH * 2, found = false;
      rows.forEach((row, q) => row.forEach((t, p) => {
        const [u, v] = at(a[p], b[q], t ?? 0), d = Math.hypot(u - x, v - y);
        if (d < best) [best, i, j, found] = [d, p, q, true];
      }));
      if (!found) return "";
    }
    return `a ${show(a[i])}, b ${show(b[j])}\nloss ${show(loss[j][i])}, accuracy ${show(accuracy[j][i])}`;
  }
}

export default {
  render({ model, el }) {
    const view = new View(model, el);
    model.send({ kind: "ready" });
    return () => view.close();
  },
};
