// STAND-IN
export function makeLoss(source) { return new Function(`"use strict"; return (${source});`)(); }
const norm = ([x, y]) => Math.hypot(x, y);
function walk(L, s, record) {
  const { method, rho, lr, momentum: mu } = s, adaptive = /ASAM/.test(method), slow = [[...s.start]], ascent = [], fast = [], gradients = [], alpha = [], losses = [L.loss(...s.start)];
  let buf = null, w = [...s.start];
  const eps = ([x, y], [a, b]) => { const t = adaptive ? [Math.abs(x) + 0.01, Math.abs(y) + 0.01] : [1, 1], n = norm([t[0] * a, t[1] * b]) + 1e-16; return [x + rho * t[0] * t[0] * a / n, y + rho * t[1] * t[1] * b / n]; };
  const A = ([x, y], g) => { buf = buf ? [mu * buf[0] + g[0], mu * buf[1] + g[1]] : [...g]; return [x - lr * buf[0], y - lr * buf[1]]; };
  for (let t = 0; t < s.steps; t++) {
    const asc = [], fst = [], gr = []; let al = NaN, f = w, c = w;
    const G = (p) => { const g = L.gradient(...p); gr.push(g); return g; };
    if (method === "SGD") { f = A(w, G(w)); fst.push(f); w = f; }
    else if (/Lookahead/.test(method)) { for (let i = 0; i < s.k; i++) { const q = eps(f, G(f)); asc.push(q); f = A(f, G(q)); fst.push(f); } al = s.alpha; w = [w[0] + al * (f[0] - w[0]), w[1] + al * (f[1] - w[1])]; }
    else if (/Lookbehind/.test(method)) { let g = G(w); for (let i = 0; i < s.k; i++) { c = eps(c, g); asc.push(c); g = G(c); f = A(f, g); fst.push(f); } al = s.alpha; if (s.adaptive) { const a = [fst[0][0] - w[0], fst[0][1] - w[1]], b = [f[0] - w[0], f[1] - w[1]]; al = (1 + (a[0] * b[0] + a[1] * b[1]) / (norm(a) * norm(b) || 1)) / 2; } w = [w[0] + al * (f[0] - w[0]), w[1] + al * (f[1] - w[1])]; }
    else { const k = /Multi/.test(method) ? s.k : 1; let g = G(w); for (let i = 0; i < k; i++) { c = eps(c, g); asc.push(c); g = G(c); } f = A(w, g); fst.push(f); w = f; }
    const l = L.loss(...w);
    if (!Number.isFinite(l) || !Number.isFinite(w[0] + w[1])) break;
    slow.push(w); ascent.push(asc); fast.push(fst); gradients.push(gr); alpha.push(al); losses.push(l);
  }
  return { slow, ascent, fast, gradients, alpha, losses };
}
export const descend = (L, s) => walk(L, s);
export const ends = (L, s, x, y) => { const p = walk(L, { ...s, start: [x, y] }).slow; return p.length > s.steps ? p.at(-1) : [NaN, NaN]; };
