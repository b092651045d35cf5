// Draws an atlas of trajectories: the kernel computed every slider position, the page looks it up.

const LEVELS = 14;
const MAP = 500, LENS = 360, CURVE = [255, 170];
const STEPS_A_SECOND = 3, SAVE_EVERY_MS = 60;

const KEY = { ascent: "→ ε: ascent", gradient: "⇢ −lr ∇L at φ′", descent: "→ descent of the fast weights", interpolation: "➔ interpolation" };

// ---- the atlas ---------------------------------------------------------------------------------

const half = (h) => {
  const sign = h & 0x8000 ? -1 : 1, e = (h >> 10) & 31, f = h & 1023;
  return sign * (e ? (1 + f / 1024) * 2 ** (e - 15) : f * 2 ** -24);
};

function readSheet({ shape: [R, A, T], counts, cost, setting }, view) {
  const data = view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
  let at = 0;
  const take = (Type, n) => {
    const array = new Type(data, at, n);
    at += array.byteLength;
    return array;
  };
  const sheet = { A, T, cost, setting, points: take(Float32Array, R * A * (T + 1) * 4), alpha: take(Float32Array, R * A * T) };
  ["ascent", "fast", "gradients"].forEach((name, i) => {
    sheet[name] = { n: counts[i], values: take(Uint16Array, R * A * T * counts[i] * 2) };
  });
  return sheet;
}

// The slow weights of one cell as rows [x, y, loss, sharpness], up to where they diverge.
function pathOf({ sheet: { points, T }, cell }, steps) {
  const rows = [];
  for (let t = 0; t <= Math.min(T, steps); t++) {
    const at = (cell * (T + 1) + t) * 4;
    if (Number.isNaN(points[at])) break;
    rows.push(points.subarray(at, at + 4));
  }
  return rows;
}

function innerOf({ sheet, cell }, name, t) {
  const { n, values } = sheet[name], base = (cell * sheet.T + t) * n * 2;
  return Array.from({ length: n }, (_, i) => [half(values[base + 2 * i]), half(values[base + 2 * i + 1])]);
}

const add = ([x, y], [u, v], s = 1) => [x + s * u, y + s * v];
const sub = (n) => String(n).replace(/\d/g, (d) => "₀₁₂₃₄₅₆₇₈₉"[d]);

// One outer step as arrows, in the order in which they happen.
function arrowsOf(found, t, lr) {
  const rows = pathOf(found, t + 1);
  if (rows.length < t + 2) return [];
  const slow = [rows[t][0], rows[t][1]], next = [rows[t + 1][0], rows[t + 1][1]];
  const climb = [slow, ...innerOf(found, "ascent", t).map((p) => add(slow, p))];
  const fast = [slow, ...innerOf(found, "fast", t).map((p) => add(slow, p))];
  const gradients = innerOf(found, "gradients", t);
  const alpha = found.sheet.alpha[found.cell * found.sheet.T + t];
  const k = climb.length - 1, descents = fast.length - 1, arrows = [];
  const ascend = (i) => arrows.push({ kind: "ascent", from: climb[i - 1], to: climb[i],
    text: `ascent ${i}: φ′${sub(i)} = φ′${sub(i - 1)} + ε${sub(i)}, ‖ε‖ = ${Math.hypot(...add(climb[i], climb[i - 1], -1)).toFixed(3)}` });
  const descend = (i, at) => arrows.push({ kind: "descent", from: fast[i - 1], to: fast[i],
    gradient: gradients[at] && { from: climb[at], to: add(climb[at], gradients[at], -lr) },
    text: k ? `descent ${i}: from φ${sub(i - 1)} by the gradient at φ′${sub(at)}` : `descent ${i}` });
  for (let i = 1; i <= k; i++) {
    ascend(i);
    if (descents === k) descend(i, i);
  }
  if (descents !== k) for (let i = 1; i <= descents; i++) descend(i, k);
  if (!Number.isNaN(alpha)) arrows.push({ kind: "interpolation", from: slow, to: next, across: fast[descents],
    text: `interpolation: φ + α (φ${sub(descents)} − φ), α = ${alpha.toFixed(2)}` });
  return arrows;
}

// ---- drawing -----------------------------------------------------------------------------------

function canvas(width, height, name) {
  const element = Object.assign(blank(width, height), { className: name });
  Object.assign(element.style, { width: `${width}px`, height: `${height}px` });
  return { element, c: element.getContext("2d"), width, height };
}

const project = ({ x0, x1, y0, y1, width, height }, [x, y]) =>
  [((x - x0) / (x1 - x0)) * width, height - ((y - y0) / (y1 - y0)) * height];

const rgb = (color) => {
  const c = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  c.fillStyle = color;
  c.fillRect(0, 0, 1, 1);
  return [...c.getImageData(0, 0, 1, 1).data.slice(0, 3)];
};

// The loss as bands between the theme's background (low) and its text colour (high).
function terrain(field, view, width, height, paper, ink) {
  const image = new ImageData(width, height), { values, W, H, ground: [x0, x1, y0, y1], low, high } = field;
  const band = new Float32Array(width * height);
  for (let j = 0; j < height; j++) {
    const y = view.y1 - ((j + 0.5) / height) * (view.y1 - view.y0);
    const v = Math.min(Math.max(((y - y0) / (y1 - y0)) * (H - 1), 0), H - 1.001), q = v | 0;
    for (let i = 0; i < width; i++) {
      const x = view.x0 + ((i + 0.5) / width) * (view.x1 - view.x0);
      const u = Math.min(Math.max(((x - x0) / (x1 - x0)) * (W - 1), 0), W - 1.001), p = u | 0;
      const at = q * W + p, a = u - p, b = v - q;
      const inside = x >= x0 && x <= x1 && y >= y0 && y <= y1;
      const loss = (1 - b) * ((1 - a) * values[at] + a * values[at + 1]) + b * ((1 - a) * values[at + W] + a * values[at + W + 1]);
      band[j * width + i] = inside ? Math.floor(LEVELS * Math.min(Math.cbrt(Math.max(loss - low, 0) / (high - low)), 2)) : -1;
    }
  }
  for (let n = 0; n < band.length; n++) {
    const edge = onEdge(band, n, width) ? 0.16 : 0;
    const share = band[n] < 0 ? 0 : 0.02 + 0.2 * Math.min(band[n] / LEVELS, 1.5) + edge;
    for (let c = 0; c < 3; c++) image.data[4 * n + c] = paper[c] + share * (ink[c] - paper[c]);
    image.data[4 * n + 3] = 255;
  }
  return picture(image);
}

function arrow(c, [x, y], [u, v], color, width = 2, dash = []) {
  const length = Math.hypot(u - x, v - y), size = Math.min(9, 3 + length / 4), angle = Math.atan2(v - y, u - x);
  if (length < 0.5) return;
  line(c, [[x, y], [u - size * 0.6 * Math.cos(angle), v - size * 0.6 * Math.sin(angle)]], color, width, dash);
  wedge(c, [u, v], angle, size);
  c.fillStyle = color;
  c.fill();
}

function star(c, [x, y], color, paper) {
  c.beginPath();
  for (let i = 0; i < 10; i++) c.lineTo(x + (i % 2 ? 3.2 : 8) * Math.sin((i * Math.PI) / 5), y - (i % 2 ? 3.2 : 8) * Math.cos((i * Math.PI) / 5));
  c.closePath();
  Object.assign(c, { fillStyle: color, strokeStyle: paper, lineWidth: 1 });
  c.fill();
  c.stroke();
}

const label = (v) => (v === 0 ? "0" : Math.abs(v) < 0.01 || Math.abs(v) >= 1e4 ? v.toExponential(0) : String(+v.toPrecision(3)));

function axes(pad, view, title, ink, yTicks) {
  const { c, width, height } = pad;
  c.clearRect(0, 0, width, height);
  Object.assign(c, { fillStyle: ink, font: "11px system-ui, sans-serif", textAlign: "left", globalAlpha: 1 });
  c.fillText(title, 6, 11);
  c.textAlign = "right";
  for (const [y, text] of yTicks) {
    const [, v] = project(view, [0, y]);
    c.fillText(text, view.left - 5, v + view.top + 4);
    c.globalAlpha = 0.18;
    line(c, [[view.left, v + view.top], [width - 8, v + view.top]], ink, 1);
    c.globalAlpha = 1;
  }
  c.textAlign = "center";
  for (const t of ticks(view.x0, view.x1)) c.fillText(t, view.left + project(view, [t, 0])[0], height - 4);
}

// ---- the controls ------------------------------------------------------------------------------

function element(tag, parent, properties = {}) {
  const made = Object.assign(document.createElement(tag), properties);
  made.dataset.lmSuppressShortcuts = "true";  // else JupyterLab takes the arrow keys for itself
  parent.append(made);
  return made;
}

function slider(parent, name, count, { show, get, set, disabled }) {
  const box = element("label", parent, { className: "lb-slider" });
  element("span", box, { textContent: name });
  const input = element("input", box, { type: "range", min: 0, max: count - 1, step: 1, disabled });
  const output = element("output", box);
  input.addEventListener("input", () => set(Number(input.value)));
  return { input, update() {
    input.value = get();
    output.textContent = show();
  } };
}

// ---- one explorer ------------------------------------------------------------------------------

class Explorer {
  constructor(model, el, sheets) {
    Object.assign(this, { model, sheets, frame: Infinity, hover: null });
    this.root = element("div", el, { className: "lb-explorer" });
    this.show = (panel) => model.get("panels").includes(panel);
    this.field();
    this.controls();
    this.panels();
    this.watch();
    this.draw();
  }

  get(name) { return this.model.get(name); }

  set(changes) {
    for (const [name, value] of Object.entries(changes)) this.model.set(name, value);
    this.draw();
    this.saving ||= setTimeout(() => {
      this.saving = null;
      this.model.save_changes();
    }, SAVE_EVERY_MS);
  }

  field() {
    const view = this.get("surface"), { shape: [H, W], window, ground } = this.get("scene");
    const values = new Float32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
    const [gx, gX, gy, gY] = ground, [x0, x1, y0, y1] = window;
    let low = Infinity, high = -Infinity;  // of the window
    values.forEach((value, n) => {
      const x = gx + ((n % W) / (W - 1)) * (gX - gx), y = gy + (Math.floor(n / W) / (H - 1)) * (gY - gy);
      if (x >= x0 && x <= x1 && y >= y0 && y <= y1) [low, high] = [Math.min(low, value), Math.max(high, value)];
    });
    this.terrain = { values, W, H, window, ground, low, high };
    this.backdrop = this.lensKey = null;
  }

  // Where the sliders stand in the sheet of `method`; undefined until it has been computed.
  find(method) {
    const { axes, RHO, ALPHA } = this.get("scene"), has = (axis) => axes[method].includes(axis);
    const sheet = this.sheets.get(`${method}/${has("k") ? this.get("k") : 0}`);
    if (!sheet) return undefined;
    const r = has("rho") ? nearest(RHO, this.get("rho")) : 0;
    const a = has("adaptive") && this.get("adaptive") ? ALPHA.length : has("alpha") ? nearest(ALPHA, this.get("alpha")) : 0;
    return { sheet, cell: r * sheet.A + a };
  }

  // A sheet of another start or learning rate is drawn until the kernel has sent the new one.
  fresh(found) {
    return found && Object.entries(found.sheet.setting).every(([name, value]) => String(value) === String(this.get(name)));
  }

  controls() {
    const { RHO, ALPHA, K, LR, MOMENTUM, STEPS, colors, defaults } = this.get("scene"), frozen = !this.get("live");
    const top = element("div", this.root, { className: "lb-row" });
    const choose = element("label", top, { textContent: "loss " });
    const loss = element("select", choose, { disabled: frozen, ariaLabel: "loss" });
    for (const name of this.get("losses")) element("option", loss, { value: name, textContent: name });
    loss.addEventListener("change", () => this.set({ loss: loss.value }));
    this.lesson = element("span", top);
    this.boxes = element("div", this.root, { className: "lb-row" });
    if (this.show("map") || this.show("curves")) for (const method of Object.keys(colors)) this.checkbox(method, colors[method]);
    const grid = element("div", this.root, { className: "lb-sliders" });
    const pick = (name, text, values, digits, disabled = false) => slider(grid, text, values.length, { disabled,
      get: () => nearest(values, this.get(name)), show: () => this.get(name).toFixed(digits), set: (i) => this.set({ [name]: values[i] }) });
    this.sliders = [pick("k", "k", K, 0), pick("rho", "ρ", RHO, 2), pick("alpha", "α", ALPHA, 2)];
    this.sliders[2].update = ((update) => () => {
      update();
      if (this.get("adaptive")) this.sliders[2].input.nextSibling.textContent = "adaptive";
    })(this.sliders[2].update);
    this.sliders.push(pick("lr", "learning rate", LR, 3, frozen), pick("momentum", "momentum", MOMENTUM, 2, frozen));
    if (this.show("map")) this.sliders.push(pick("steps", "steps", STEPS, 0));
    if (this.show("lens")) this.sliders.push(pick("t", "outer step t", [0, ...STEPS.slice(0, -1)], 0));
    const row = element("div", this.root, { className: "lb-row" });
    const adaptive = element("label", row);
    const box = element("input", adaptive, { type: "checkbox" });
    adaptive.append("adaptive α");
    box.addEventListener("change", () => this.set({ adaptive: box.checked }));
    if (this.show("lens")) this.player(row);
    element("button", row, { textContent: "Reset" }).addEventListener("click", () => {
      this.frame = Infinity;
      this.set(frozen ? Object.fromEntries(Object.entries(defaults).filter(([name]) => !["loss", "start", "lr", "momentum"].includes(name))) : defaults);
    });
    this.status = element("span", row);
    this.refresh = () => {
      for (const s of this.sliders) s.update();
      ["k", "rho", "alpha"].forEach((axis, i) => (this.sliders[i].input.disabled = !this.moves(axis)));
      box.disabled = !this.moves("adaptive");
      loss.value = this.get("loss");
      box.checked = this.get("adaptive");
      this.lesson.textContent = this.get("scene").lesson;
      for (const b of this.boxes.querySelectorAll("input")) b.checked = this.get("methods").includes(b.value);
    };
  }

  shown() { return [...new Set([...this.get("methods"), ...(this.show("lens") ? [this.get("lens")] : [])])]; }

  // Whether a slider changes any of the methods shown: SGD has no ρ, SAM no k.
  moves(axis) { return this.shown().some((method) => this.get("scene").axes[method].includes(axis)); }

  checkbox(method, color) {
    const box = element("label", this.boxes), input = element("input", box, { type: "checkbox", value: method });
    element("span", box, { className: "lb-swatch" }).style.background = color;
    box.append(method);
    input.disabled = !this.get("live") && !this.get("methods").includes(method);
    input.addEventListener("change", () => {
      const chosen = [...this.boxes.querySelectorAll("input:checked")].map((b) => b.value);
      this.set({ methods: chosen });
    });
  }

  // Walks through the arrows of one outer step after the other.
  player(row) {
    const step = (by) => {
      const count = this.arrows().length;
      let frame = Math.min(this.frame, count) + by, t = this.get("t");
      if (frame > count && t < this.get("steps") - 1) [frame, t] = [0, t + 1];
      else if (frame < 0 && t > 0) [frame, t] = [count, t - 1];
      else if (frame > count || frame < 0) return false;
      this.frame = frame;
      this.set({ t });
      return true;
    };
    const stop = () => {
      clearInterval(this.playing);
      this.playing = null;
      play.textContent = "▶ Play";
    };
    element("button", row, { textContent: "◀ Back" }).addEventListener("click", () => step(-1));
    element("button", row, { textContent: "Step ▶" }).addEventListener("click", () => step(1));
    const play = element("button", row, { textContent: "▶ Play" });
    play.addEventListener("click", () => {
      if (this.playing) return stop();
      if (this.frame >= this.arrows().length) this.frame = 0;
      play.textContent = "Pause";
      this.playing = setInterval(() => step(1) || stop(), 1000 / STEPS_A_SECOND);
      this.draw();
    });
    this.stop = stop;
  }

  panels() {
    const row = element("div", this.root, { className: "lb-row" });
    row.style.alignItems = "flex-start";
    if (this.show("map")) {
      const [x0, x1, y0, y1] = this.terrain.window;
      this.map = canvas(MAP, Math.round((MAP * (y1 - y0)) / (x1 - x0)), "lb-map");
      element("figure", row).append(this.map.element, (this.readout = document.createElement("figcaption")));
      this.drag();
    }
    if (this.show("lens")) {
      this.lens = canvas(LENS, LENS, "lb-lens");
      const box = element("figure", row);
      const head = element("label", box, { textContent: "one outer step of " });
      this.lensOf = element("select", head, { ariaLabel: "method under the lens" });
      for (const method of Object.keys(this.get("scene").colors)) element("option", this.lensOf, { value: method, textContent: method });
      this.lensOf.addEventListener("change", () => this.set({ lens: this.lensOf.value }));
      const key = element("div", box, { className: "lb-key" });
      for (const [role, color] of Object.entries(this.get("scene").roles)) element("span", key, { textContent: KEY[role] }).style.color = color;
      box.append(this.lens.element, (this.caption = document.createElement("figcaption")));
    }
    if (!this.show("curves")) return;
    const below = element("div", this.root, { className: "lb-row" });
    this.curves = ["loss", "sharpness"].map((name) => canvas(...CURVE, `lb-${name}`));
    below.append(...this.curves.map((pad) => pad.element));
    this.table = element("table", below);
    element("thead", this.table).innerHTML = "<tr><th>at the end</th><th>gradients</th><th>L(φ)</th><th>λ<sub>max</sub></th></tr>";
    this.rows = element("tbody", this.table);
    for (const pad of this.curves) {
      pad.element.addEventListener("pointermove", (e) => this.look(pad, e));
      pad.element.addEventListener("pointerleave", () => this.look(null));
    }
  }

  // Hover over a curve: the table shows that step.
  look(pad, event) {
    const at = pad && Math.round(((event.offsetX - 46) / (pad.width - 54)) * this.get("steps"));
    this.hover = pad ? Math.min(Math.max(at, 0), this.get("steps")) : null;
    this.draw();
  }

  drag() {
    const { element: pad, width, height } = this.map, [x0, x1, y0, y1] = this.terrain.window;
    const at = (e) => [x0 + (Math.min(Math.max(e.offsetX, 0), width) / width) * (x1 - x0), y1 - (Math.min(Math.max(e.offsetY, 0), height) / height) * (y1 - y0)];
    const say = ([x, y]) => (this.readout.textContent = `x = ${x.toFixed(2)}, y = ${y.toFixed(2)}${this.get("live") ? " (click or drag to move the start)" : ""}`);
    let down = false;
    const move = (e) => {
      say(at(e));
      if (down) this.set({ start: at(e) });
    };
    pad.addEventListener("pointermove", move);
    pad.addEventListener("pointerdown", (e) => {
      down = this.get("live");
      pad.setPointerCapture(e.pointerId);
      move(e);
    });
    pad.addEventListener("pointerup", () => (down = false));
    say(this.get("start"));
  }

  watch() {
    const draw = () => this.draw();
    const names = ["k", "rho", "alpha", "adaptive", "steps", "t", "lens", "methods", "lr", "momentum", "start", "loss", "error"];
    for (const name of names) this.model.on(`change:${name}`, draw);
    const field = () => {
      this.field();
      this.draw();
    };
    this.model.on("change:surface", field);
    this.themes = new MutationObserver(draw);
    this.themes.observe(document.body, { attributes: true });
    this.attached = new ResizeObserver(draw);  // colours are known only once the page holds the element
    this.attached.observe(this.root);
    this.close = () => {
      for (const name of names) this.model.off(`change:${name}`, draw);
      this.model.off("change:surface", field);
      this.themes.disconnect();
      this.attached.disconnect();
      clearInterval(this.playing);
    };
  }

  arrows() {
    const found = this.find(this.get("lens"));
    return found ? arrowsOf(found, Math.min(this.get("t"), this.get("steps") - 1), this.get("lr")) : [];
  }

  draw() {
    const style = getComputedStyle(this.root);
    if (this.ink !== style.color || this.paper !== style.backgroundColor) {
      Object.assign(this, { ink: style.color, paper: style.backgroundColor, backdrop: null, lensKey: null });
    }
    this.refresh();
    const missing = this.shown().filter((method) => !this.fresh(this.find(method)));
    this.status.textContent = this.get("error") || (missing.length ? `computing ${missing.join(", ")} …` : "");
    this.paths = this.get("methods").map((method) => [method, this.find(method)]).filter(([, found]) => found)
      .map(([method, found]) => ({ method, found, rows: pathOf(found, this.get("steps")), color: this.get("scene").colors[method] }));
    if (this.map) this.drawMap();
    if (this.lens) this.drawLens();
    if (this.curves) this.drawCurves();
    if (!missing.length) (window.__redraws = window.__redraws || []).push(performance.now());
  }

  shade(view, width, height) {
    return terrain(this.terrain, view, width, height, rgb(this.paper), rgb(this.ink));
  }

  drawMap() {
    const { c, width, height } = this.map, [x0, x1, y0, y1] = this.terrain.window;
    const view = { x0, x1, y0, y1, width, height }, at = (p) => project(view, p);
    this.backdrop ||= this.shade(view, width, height);
    c.drawImage(this.backdrop, 0, 0, width, height);
    for (const minimum of this.get("scene").minima) star(c, at(minimum), this.ink, this.paper);
    for (const { rows, color } of this.paths) {
      const points = rows.map(at), out = ([u, v]) => u < 0 || v < 0 || u > width || v > height;
      // A step from outside to outside is left out: methods that diverge would hatch the map.
      points.slice(1).forEach((p, t) => out(p) && out(points[t]) || line(c, [points[t], p], color, 2));
      for (const p of points) dot(c, p, 2, color);
      dot(c, points.at(-1), 5, color, this.paper);
    }
    dot(c, at(this.get("start")), 6, null, this.ink);
    const under = this.lens && this.paths.find((p) => p.method === this.get("lens"));
    if (under && under.rows[this.get("t")]) dot(c, at(under.rows[this.get("t")]), 9, null, this.ink);
    Object.assign(c, { fillStyle: this.ink, font: "11px system-ui, sans-serif", textAlign: "left" });
    for (const x of ticks(x0, x1)) this.tick(at([x, y0]), 0, label(x));
    for (const y of ticks(y0, y1)) this.tick(at([x0, y]), 1, label(y));
    c.fillText("x", width - 10, height - 4);
    c.fillText("y", 3, 11);
  }

  tick([x, y], vertical, text) {
    const { c, width, height } = this.map, [u, v] = vertical ? [6, y + 4] : [x - 3, height - 8];
    if (u < 3 || u > width - 24 || v < 22 || v > height - 4) return;
    c.fillText(text, vertical ? u + 2 : u, v);
    line(c, vertical ? [[0, y], [5, y]] : [[x, height], [x, height - 5]], this.ink, 1);
  }

  drawLens() {
    const { c, width, height } = this.lens, arrows = this.arrows(), { roles } = this.get("scene");
    this.lensOf.value = this.get("lens");
    c.clearRect(0, 0, width, height);
    this.caption.textContent = arrows.length ? "" : "nothing to show: this method has diverged or is being computed";
    if (!arrows.length) return;
    const ends = arrows.flatMap(({ from, to, gradient, across }) => [from, to, ...(gradient ? [gradient.to] : []), ...(across ? [across] : [])]);
    const [xs, ys] = [0, 1].map((i) => ends.map((p) => p[i]));
    const middle = [xs, ys].map((v) => (Math.min(...v) + Math.max(...v)) / 2);
    const radius = 0.62 * Math.max(Math.max(...xs) - Math.min(...xs), Math.max(...ys) - Math.min(...ys), 1e-3);
    const view = { x0: middle[0] - radius, x1: middle[0] + radius, y0: middle[1] - radius, y1: middle[1] + radius, width, height };
    const at = (p) => project(view, p);
    const key = [view.x0, view.y0, radius].join();
    if (key !== this.lensKey) Object.assign(this, { lensKey: key, lensShade: this.shade(view, width, height) });
    c.drawImage(this.lensShade, 0, 0, width, height);
    const shown = arrows.slice(0, this.frame);
    for (const { kind, from, to, gradient, across } of shown) {
      if (gradient) arrow(c, at(gradient.from), at(gradient.to), roles.gradient, 1.5, [4, 3]);
      if (across) line(c, [at(from), at(across)], roles.interpolation, 1, [2, 3]);
      arrow(c, at(from), at(to), roles[kind], kind === "interpolation" ? 3.5 : 2.5);
      if (kind !== "interpolation") dot(c, at(to), 3, roles[kind]);
    }
    dot(c, at(arrows[0].from), 5, this.ink, this.paper);
    this.drawScale(2 * radius);
    this.caption.textContent = shown.length === arrows.length && this.frame === Infinity ? "ε climbs, the fast weights descend, α interpolates" : shown.length ? shown.at(-1).text : "at the slow weights φ";
  }

  drawScale(across) {
    const { c, width, height } = this.lens;
    Object.assign(c, { font: "11px system-ui, sans-serif", fillStyle: this.ink });
    const length = 10 ** Math.floor(Math.log10(across / 2)), bar = (length / across) * width;
    line(c, [[width - 12 - bar, height - 10], [width - 12, height - 10]], this.ink, 2);
    c.textAlign = "right";
    c.fillText(label(length), width - 12, height - 15);
  }

  drawCurves() {
    const steps = this.get("steps"), frame = { left: 46, top: 18, width: CURVE[0] - 54, height: CURVE[1] - 36, x0: 0, x1: steps };
    const [x0, x1, y0, y1] = this.terrain.window, inside = ([x, y]) => x >= x0 && x <= x1 && y >= y0 && y <= y1;
    const seen = this.paths.flatMap(({ rows }) => rows.filter(inside));  // what leaves the map sets no scale
    const losses = seen.map((r) => r[2]).filter((v) => v > 0);
    const lowest = Math.max(Math.min(...losses, 1), 1e-8), highest = Math.max(...losses, 10 * lowest);
    const [d0, d1] = [Math.floor(Math.log10(lowest)), Math.ceil(Math.log10(highest))];
    const decades = Array.from({ length: d1 - d0 + 1 }, (_, i) => d0 + i).filter((d) => (d - d0) % Math.ceil((d1 - d0) / 5) === 0);
    const sharp = seen.map((r) => r[3]), top = Math.max(...sharp, 0.1) * 1.05, bottom = Math.min(...sharp, 0);
    const views = [{ ...frame, y0: d0, y1: d1 }, { ...frame, y0: bottom, y1: top }];
    axes(this.curves[0], views[0], "loss L(φ) against outer step", this.ink, decades.map((d) => [d, `1e${d}`]));
    axes(this.curves[1], views[1], "sharpness λmax(φ) against outer step", this.ink, ticks(bottom, top).map((v) => [v, label(v)]));
    views.forEach((view, i) => {
      const { c } = this.curves[i];
      c.save();
      c.beginPath();
      c.rect(view.left, view.top - 2, view.width + 4, view.height + 4);
      c.clip();
      c.translate(view.left, view.top);
      for (const { rows, color } of this.paths) line(c, rows.map((r, t) => project(view, [t, i ? r[3] : Math.log10(Math.max(r[2], 1e-30))])), color, 2);
      if (this.hover !== null) line(c, [project(view, [this.hover, view.y0]), project(view, [this.hover, view.y1])], this.ink, 1);
      c.restore();
    });
    this.fillTable();
  }

  fillTable() {
    const steps = this.hover ?? this.get("steps");
    this.table.tHead.rows[0].cells[0].textContent = `after ${steps} step${steps === 1 ? "" : "s"}`;
    this.rows.replaceChildren(...this.paths.map(({ method, found, rows, color }) => {
      const tr = document.createElement("tr"), last = rows[steps];
      const values = [`● ${method}`, steps * found.sheet.cost, ...(last ? [last[2] > 1e-12 ? last[2].toPrecision(2) : "0", last[3].toPrecision(3)] : ["diverged", ""])];
      for (const value of values) element("td", tr, { textContent: value });
      tr.cells[0].style.color = color;
      return tr;
    }));
  }
}

export default () => {
  const sheets = new Map(), views = new Set();
  return {
    initialize({ model }) {
      model.on("msg:custom", (header, [buffer]) => {
        sheets.set(`${header.method}/${header.k}`, readSheet(header, buffer));
        for (const view of views) view.draw();
      });
      model.on("change:surface", () => sheets.clear());
    },
    render({ model, el }) {
      const view = new Explorer(model, el, sheets);
      views.add(view);
      model.send({ kind: "ready" });
      return () => {
        view.close();
        views.delete(view);
      };
    },
  };
};
