// What leaves the page: its address, Python code, and a picture.

import { Pad } from "../shared/drawing.js";

const NUMBERS = ["k", "rho", "alpha", "lr", "momentum", "steps", "t"];

// The setting as the part of an address after #, and back. What is missing there stays as it is.
export function toHash(state) {
  const parts = new URLSearchParams({ loss: state.loss, start: state.start.map((v) => +v.toFixed(4)).join(","), methods: state.methods.join(","), lens: state.lens });
  for (const name of NUMBERS) parts.set(name, +state[name].toFixed(6));
  if (state.adaptive) parts.set("alpha", "adaptive");
  if (state.ends) parts.set("ends", state.ends);
  return `#${parts}`;
}

// `limits`: [low, high] of each number; `losses`, `methods`: the names that there are.
export function fromHash(hash, { limits, losses, methods }) {
  const parts = new URLSearchParams(hash.replace(/^#/, "")), found = {};
  for (const name of NUMBERS) {
    const value = Number(parts.get(name)), [low, high] = limits[name];
    if (parts.get(name) && value >= low && value <= high) found[name] = ["k", "steps", "t"].includes(name) ? Math.round(value) : value;
  }
  if (parts.get("alpha")) found.adaptive = parts.get("alpha") === "adaptive";
  const start = (parts.get("start") ?? "").split(",").map(Number);
  if (parts.get("start") && start.length === 2 && start.every(Number.isFinite)) found.start = start;
  if (losses.includes(parts.get("loss"))) found.loss = parts.get("loss");
  if (methods.includes(parts.get("lens"))) found.lens = parts.get("lens");
  if (parts.has("methods")) found.methods = parts.get("methods").split(",").filter((name) => methods.includes(name));
  if (["place", "sharpness", ""].includes(parts.get("ends") ?? "")) found.ends = parts.get("ends") ?? "";
  return found;
}

const short = (value) => String(+value.toPrecision(12));

function maker(method, { k, rho, alpha, adaptive, lr, momentum }) {
  const base = `SGD(w, lr=${short(lr)}${momentum ? `, momentum=${short(momentum)}` : ""})`, r = short(rho);
  const way = adaptive ? '"adaptive"' : short(alpha);
  return {
    "SGD": base,
    "SAM": `SAM(${base}, rho=${r})`,
    "ASAM": `ASAM(${base}, rho=${r})`,
    "Multistep-SAM": `MultistepSAM(${base}, Ball(${r}), k=${k})`,
    "Lookahead-SAM": `Lookahead(SAM(${base}, rho=${r}), k=${k}, alpha=${short(alpha)})`,
    "Lookbehind-SAM": `Lookbehind(${base}, Ball(${r}), k=${k}, alpha=${way})`,
    "Lookbehind-ASAM": `Lookbehind(${base}, AdaptiveBall(${r}), k=${k}, alpha=${way})`,
  }[method];
}

// Code that runs the paths shown with the optimizers that train networks.
export function python(state, toy) {
  const makers = state.methods.map((method) => [method, maker(method, state)]), all = makers.map(([, code]) => code).join();
  const names = ["ASAM", "SAM", "AdaptiveBall", "Ball", "Lookahead", "Lookbehind", "MultistepSAM"].filter((name) => new RegExp(`\\b${name}\\(`).test(all));
  const loss = toy.python ?? `LOSSES["${toy.name}"]`, imports = toy.python ? toy.imports : "LOSSES";
  return [
    "from torch.optim import SGD",
    "",
    ...(names.length ? [`from lookbehind import ${names.join(", ")}`] : []),
    `from lookbehind.toy import ${["descend", imports].filter(Boolean).sort().join(", ")}`,
    "",
    `loss = ${loss}${toy.noise ? "  # its noise is another draw than the page's" : ""}`,
    "methods = {",
    ...makers.map(([method, code]) => `    "${method}": lambda w: ${code},`),
    "}",
    "for name, make in methods.items():",
    `    path = descend(loss, (${state.start.map(short).join(", ")}), make, ${state.steps})`,
    '    print(f"{name}: ends at {path.slow[-1]}, loss {path.losses[-1]:.3g}")',
    "",
  ].join("\n");
}

// The pictures of an explorer on one sheet, with a title, as a PNG.
export function sheet(pads, title, { paperText, inkText }) {
  const [map, ...rest] = pads, side = rest.filter((pad) => pad.beside), below = rest.filter((pad) => !pad.beside);
  const gap = 12, top = 34, width = Math.max(map.width + side.reduce((sum, p) => sum + p.width + gap, 0), ...below.map((p) => p.width));
  const upper = Math.max(map.height, ...side.map((p) => p.height)), height = top + upper + below.reduce((sum, p) => sum + p.height + gap, 0);
  const pad = new Pad(document.createElement("canvas"));
  pad.fit(width + 2 * gap, height + gap);
  const c = pad.clear();
  Object.assign(c, { fillStyle: paperText });
  c.fillRect(0, 0, pad.width, pad.height);
  Object.assign(c, { fillStyle: inkText, font: "14px system-ui, sans-serif" });
  c.fillText(title, gap, 22, width);
  let x = gap, y = top;
  for (const one of [map, ...side]) {
    if (one.under) c.drawImage(one.under.element, x, y, one.width, one.height);
    c.drawImage(one.element, x, y, one.width, one.height);
    x += one.width + gap;
  }
  y += upper + gap;
  for (const one of below) {
    c.drawImage(one.element, gap, y, one.width, one.height);
    y += one.height + gap;
  }
  return new Promise((done) => pad.element.toBlob(done));
}
