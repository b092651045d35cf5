// The optimizers of `lookbehind.optim` on two weights, as the page of an explorer runs them.
//
// The algorithm is written twice on purpose: there for networks, here for a picture that follows
// a finger. tests/test_explore_engine.py holds both together, point by point.

const ETA = 0.01; // of ASAM's T = |w| + η
const FLOOR = 1e-16, TINY = 2.2250738585072014e-308; // in place of a norm that is 0

/** {loss, gradient, hessian} from the text that `ToyLoss.javascript` gives. */
export const makeLoss = (source) => new Function(`"use strict"; return (${source});`)();

/** λ_max of the Hessian at a point. */
export function sharpness(loss, [x, y]) {
  const [a, b, d] = loss.hessian(x, y);
  return (a + d) / 2 + Math.hypot((a - d) / 2, b);
}

/**
 * A descent of `setting.steps` outer steps, every point of it; shorter where it diverged.
 *
 * setting = {method, k, rho, alpha, adaptive, gradient, lr, momentum, start: [x, y], steps, seed,
 * noise}: `method` as in `lookbehind.optim.METHODS`, `gradient` "last" or "mean" of Multistep-SAM,
 * `noise` the standard deviation of the gradient's noise, or a function (t, i) → [ξx, ξy].
 *
 * slow       φ before the first and after each outer step: T + 1 points
 * ascent     a list a step: the climb φ'_1 … φ'_a
 * fast       a list a step: the descents φ_1 … φ_d
 * gradients  a list a step: ∇L where it was taken, noise included
 * alpha      the interpolation, NaN where the method has none
 * losses     L(φ), without noise: T + 1
 */
export function descend(loss, setting) {
  const outer = optimizer(loss, setting), start = [...setting.start];
  const path = { slow: [start], losses: [loss.loss(...start)], ascent: [], fast: [], gradients: [], alpha: [] };
  for (let t = 0; t < setting.steps; t++) {
    const step = { ascent: [], fast: [], gradients: [], alpha: NaN, finite: true };
    const end = outer(path.slow[t], t, step);
    if (!step.finite) break; // the step is undone
    path.slow.push(end);
    path.losses.push(loss.loss(...end));
    for (const name of ["ascent", "fast", "gradients", "alpha"]) path[name].push(step[name]);
  }
  return path;
}

/** φ after the last outer step from (x, y), NaN where a gradient was not finite. */
export function endPoint(loss, setting, x, y) {
  const outer = optimizer(loss, setting), step = { alpha: NaN, finite: true };
  let end = [x, y];
  for (let t = 0; t < setting.steps && step.finite; t++) end = outer(end, t, step);
  return step.finite ? end : [NaN, NaN];
}

/** One outer step (φ, t, step) → φ; what a `step` has lists for is recorded in it. */
function optimizer(loss, setting) {
  const { method, k, rho, alpha, adaptive, gradient = "last", lr, momentum = 0 } = setting;
  const draw = noiseOf(setting), scaled = method.endsWith("ASAM");
  let step, noise, velocity = null;

  const at = (p) => { // ∇L(p) on the minibatch
    const g = loss.gradient(p[0], p[1]);
    if (noise) { g[0] += noise[0]; g[1] += noise[1]; }
    step.finite &&= Number.isFinite(g[0] + g[1]);
    if (step.gradients) {
      step.finite &&= Number.isFinite(loss.loss(p[0], p[1]));
      step.gradients.push(g);
    }
    return g;
  };
  const climb = (p, g) => { // φ' + ρ T² g / ‖T g‖
    const tx = scaled ? Math.abs(p[0]) + ETA : 1, ty = scaled ? Math.abs(p[1]) + ETA : 1;
    const u = tx * g[0], v = ty * g[1], length = rho / (Math.sqrt(u * u + v * v) + FLOOR);
    return kept(step.ascent, [p[0] + length * tx * u, p[1] + length * ty * v]);
  };
  const down = (p, g) => { // SGD: v ← βv + g, φ ← φ − lr v
    velocity = momentum && velocity ? [momentum * velocity[0] + g[0], momentum * velocity[1] + g[1]] : g;
    return kept(step.fast, [p[0] - lr * velocity[0], p[1] - lr * velocity[1]]);
  };
  const interpolate = (slow, fast, a) => { // φ + α (φ_k − φ)
    step.alpha = a;
    return [mix(slow[0], fast[0], a), mix(slow[1], fast[1], a)];
  };

  const multistep = (slow, climbs) => {
    let p = slow, g = at(slow), sum = [0, 0];
    for (let i = 0; i < climbs; i++) {
      g = at(p = climb(p, g));
      sum = [sum[0] + g[0], sum[1] + g[1]];
    }
    return down(slow, gradient === "mean" ? [sum[0] / climbs, sum[1] / climbs] : g);
  };
  const lookbehind = (slow) => {
    let p = slow, fast = slow, first = null, g = at(slow);
    for (let i = 0; i < k; i++) {
      g = at(p = climb(p, g));
      fast = down(fast, g);
      first ??= fast;
    }
    return interpolate(slow, fast, adaptive ? cosineAlpha(slow, first, fast) : alpha);
  };
  const lookahead = (slow, t) => {
    let fast = slow;
    for (let i = 0; i < k; i++) {
      noise = draw?.(t, i);
      fast = down(fast, at(climb(fast, at(fast))));
    }
    return interpolate(slow, fast, alpha);
  };
  const walk = {
    "SGD": (slow) => down(slow, at(slow)),
    "SAM": (slow) => multistep(slow, 1),
    "ASAM": (slow) => multistep(slow, 1),
    "Multistep-SAM": (slow) => multistep(slow, k),
    "Lookahead-SAM": lookahead,
    "Lookbehind-SAM": lookbehind,
    "Lookbehind-ASAM": lookbehind,
  }[method];
  return (slow, t, record) => {
    step = record;
    noise = draw?.(t, 0);
    return walk(slow, t);
  };
}

const kept = (list, point) => (list?.push(point), point);
const mix = (slow, fast, a) => (1 - a < 0.5 ? fast + (1 - a) * (slow - fast) : slow - (slow - fast) * a);

/** (1 + cos ∠(φ_1 − φ, φ_k − φ)) / 2 */
function cosineAlpha(slow, first, last) {
  const a = first[0] - slow[0], b = first[1] - slow[1], c = last[0] - slow[0], d = last[1] - slow[1];
  const norms = Math.max(Math.sqrt(a * a + b * b) * Math.sqrt(c * c + d * d), TINY);
  return (1 + Math.min(1, Math.max(-1, (a * c + b * d) / norms))) / 2;
}

/** The noise of a minibatch, (t, i) → [ξx, ξy]: normal numbers that depend on seed, t and i only. */
function noiseOf({ noise, seed = 0 }) {
  if (!noise || typeof noise === "function") return noise || null;
  return (t, i) => {
    const [u, v] = [0, 1].map((part) => uniform((seed * 4096 + t) * 64 + 2 * i + part));
    const r = noise * Math.sqrt(-2 * Math.log(u));
    return [r * Math.cos(2 * Math.PI * v), r * Math.sin(2 * Math.PI * v)];
  };
}

/** A number in (0, 1) from a whole one, its bits mixed as in murmur3. */
function uniform(n) {
  let h = Math.imul(n ^ (n >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (((h ^ (h >>> 16)) >>> 0) + 0.5) / 4294967296;
}
