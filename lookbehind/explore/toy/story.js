// What the picture shows, in numbers and in words: paths, arrows, captions. It draws nothing.

import { words } from "../shared/drawing.js";
import { descend, sharpness } from "./engine.js";

export const far = 1e6; // a path is followed to here, in units of the weights

const inside = ({ window: [x0, x1, y0, y1] }, [x, y]) => x >= x0 && x <= x1 && y >= y0 && y <= y1;

// One method's path with all that is said of it. `left`: the first step outside the map.
export function path(toy, setting) {
  return told(toy, setting, descend(toy.loss, setting), (p) => sharpness(toy.loss, p));
}

export function told(toy, setting, run, sharp) {
  const end = run.slow.findIndex(([x, y]) => !(Math.abs(x) < far && Math.abs(y) < far));
  const slow = end < 0 ? run.slow : run.slow.slice(0, end), left = slow.findIndex((p) => !inside(toy, p));
  const diverged = slow.length <= setting.steps;
  return { ...run, slow, setting, diverged, sharp: slow.map(sharp), cost: run.gradients[0]?.length ?? 1,
    left: left > 0 ? left : diverged ? slow.length : null };
}

// One outer step as arrows, in the order in which they happen: climbs, descents, interpolation.
export function arrowsOf(run, t) {
  if (t + 1 >= run.slow.length) return [];
  const { method, lr } = run.setting, slow = run.slow[t], next = run.slow[t + 1], alpha = run.alpha[t];
  const ascent = run.ascent[t], fast = [slow, ...run.fast[t]], k = ascent.length, d = fast.length - 1, arrows = [];
  const apart = method.startsWith("Lookahead"); // each inner step of SAM climbs from where it stands
  const climb = (i) => arrows.push({ kind: "ascent", i, of: k, from: i === 1 ? slow : apart ? fast[i - 1] : ascent[i - 2], to: ascent[i - 1] });
  const descent = (i, at, g) => arrows.push({ kind: "descent", i, of: d, from: fast[i - 1], to: fast[i], at, gradient: g && { from: at, to: [at[0] - lr * g[0], at[1] - lr * g[1]] } });
  const gradients = run.gradients[t];
  for (let i = 1; i <= k; i++) {
    climb(i);
    if (d === k) descent(i, ascent[i - 1], gradients[apart ? 2 * i - 1 : i]);
  }
  if (d !== k) descent(1, k ? ascent[k - 1] : slow, gradients[k]);
  if (Number.isFinite(alpha)) arrows.push({ kind: "interpolation", i: 1, of: 1, from: slow, to: next, across: fast[d], alpha });
  return arrows;
}

const two = (value) => words(value, 2);

// What one arrow does.
export function caption(toy, arrow) {
  const [from, to] = [arrow.from, arrow.to].map((p) => two(toy.value(...p)));
  if (arrow.kind === "ascent") {
    const length = Math.hypot(arrow.to[0] - arrow.from[0], arrow.to[1] - arrow.from[1]);
    return `Climb ${arrow.i} of ${arrow.of}: ‖ε‖ = ${words(length)}, loss ${from} → ${to}.`;
  }
  if (arrow.kind === "descent") return `Descent ${arrow.i} of ${arrow.of}, by the gradient found at loss ${two(toy.value(...arrow.at))}: loss ${from} → ${to}.`;
  return `Interpolation: ${words(100 * arrow.alpha, 2)} % of the way, loss ${from} → ${to}.`;
}

// The first climb that goes downhill again: it has passed over a ridge.
function crossing(toy, run, t) {
  const climbs = arrowsOf(run, t).filter(({ kind }) => kind === "ascent");
  let top = -Infinity;
  for (const { i, from, to } of climbs) {
    top = Math.max(top, toy.value(...from));
    if (i > 1 && toy.value(...to) < top) return { i, top, after: toy.value(...to) };
  }
  return null;
}

// Why a path left the map, and what to lower.
export function advice(toy, run) {
  const { method, k, alpha, adaptive, lr, rho } = run.setting, at = run.slow[Math.max(run.left - 1, 0)] ?? run.slow.at(-1);
  const many = /Look/.test(method) && !(adaptive && /behind/.test(method)) && alpha * k > 1.5;
  const steep = toy.sharpness(at);
  if (many) return `lower α: αk = ${words(alpha * k)}`;
  if (lr * steep > 2) return `lower the learning rate: lr · λ = ${words(lr * steep)}, above 2`;
  return rho > 0 && method !== "SGD" ? `lower ρ: it climbed to loss ${two(Math.max(...run.ascent[Math.min(run.left, run.ascent.length) - 1]?.map((p) => toy.value(...p)) ?? [NaN]))}` : "lower the learning rate";
}

// The moment that is shown: the whole of outer step t of `run`, or that it left.
export function moment(toy, run, t) {
  const { method } = run.setting;
  if (run.left !== null && t >= run.left - 1) return `${method} left the map at step ${run.left}; ${advice(toy, run)}.`;
  if (t + 1 >= run.slow.length) return `${method} ends before step ${t}.`;
  const [before, after] = [t, t + 1].map((n) => two(run.losses[n])), crossed = crossing(toy, run, t);
  const climbs = run.ascent[t].map((p) => toy.value(...p)), highest = Math.max(...climbs);
  const how = crossed ? `climb ${crossed.i} crossed the barrier, loss ${two(crossed.top)} → ${two(crossed.after)}`
    : climbs.length ? `climbs from loss ${before} to ${two(highest)}` : "goes straight down";
  return `Step ${t} of ${method}: ${how}; then loss ${before} → ${after}, sharpness ${words(run.sharp[t])} → ${words(run.sharp[t + 1])}.`;
}

// How a method ended, for its chip and for the text of the picture.
export function ending(run) {
  const steps = run.setting.steps;
  if (run.left !== null && run.diverged) return { short: `left at step ${run.left}`, gradients: run.cost * (run.slow.length - 1) };
  const n = run.slow.length - 1;
  return { short: run.left === null ? "" : `left at step ${run.left}`, loss: two(Math.abs(run.losses[n]) < 1e-12 ? 0 : run.losses[n]), sharp: words(run.sharp[n]), gradients: run.cost * steps, at: run.slow[n].map((v) => words(v)) };
}

export function inWords(toy, setting, runs) {
  const start = setting.start.map((v) => words(v)).join(", "), [x0, x1, y0, y1] = toy.window.map((v) => words(v));
  const lines = runs.map((run) => {
    const end = ending(run), { method } = run.setting;
    return end.at ? `${method} ends at (${end.at.join(", ")}) with loss ${end.loss} and sharpness ${end.sharp}, for ${end.gradients} gradients${end.short ? `; it ${end.short}` : ""}.` : `${method} ${end.short}; ${advice(toy, run)}.`;
  });
  return `Map of the loss ${toy.name}, L = ${toy.formula}, for x from ${x0} to ${x1} and y from ${y0} to ${y1}. From the start (${start}), after ${setting.steps} outer steps: ${lines.join(" ") || "no method is chosen."}`;
}

const T = "T = |φ| + 0.01";

// The formulas of a method, a line for each kind of arrow.
export function formulas(method, momentum) {
  const asam = method.includes("ASAM"), step = (from, at) => (momentum ? `A(${from}, ∇L(${at}))` : `${from} − lr ∇L(${at})`);
  const climb = (from) => (asam ? `${from} + ρ T² g / ‖T g‖,  ${T}` : `${from} + ρ g / ‖g‖`);
  if (method === "SGD") return [["descent", `φ ← ${step("φ", "φ")}`]];
  if (method === "Lookahead-SAM") return [["ascent", `φ′ᵢ = ${climb("φᵢ₋₁")},  g = ∇L(φᵢ₋₁)`], ["descent", `φᵢ = ${step("φᵢ₋₁", "φ′ᵢ")}`], ["interpolation", "φ ← φ + α (φₖ − φ)"]];
  if (method.startsWith("Lookbehind")) return [["ascent", `φ′ᵢ = ${climb("φ′ᵢ₋₁")},  g = ∇L(φ′ᵢ₋₁)`], ["descent", `φᵢ = ${step("φᵢ₋₁", "φ′ᵢ")}`], ["interpolation", "φ ← φ + α (φₖ − φ)"]];
  if (method === "Multistep-SAM") return [["ascent", `φ′ᵢ = ${climb("φ′ᵢ₋₁")},  g = ∇L(φ′ᵢ₋₁)`], ["descent", `φ ← ${step("φ", "φ′ₖ")}`]];
  return [["ascent", `φ′ = ${climb("φ")},  g = ∇L(φ)`], ["descent", `φ ← ${step("φ", "φ′")}`]];
}
