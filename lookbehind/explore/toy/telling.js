// What the page says beside its pictures, when they change: values for ears, chips, captions, formulas.

import { mark, put, say } from "../shared/controls.js";
import { between, words } from "../shared/drawing.js";
import { showFormulas } from "./layout.js";
import { caption, ending, formulas, moment } from "./story.js";

// `x`: the explorer. `scene`: what is drawn.

export function putHandles(x, { start, grip }) {
  const { state, setup } = x, [u, v] = state.start;
  x.startHandle.put(start, { "aria-valuenow": +u.toFixed(4), "aria-valuetext": `x ${words(u)}, y ${words(v)}` });
  x.ringHandle.put(grip, { "aria-valuenow": +state.rho.toFixed(4), "aria-valuemin": 0, "aria-valuemax": setup.limits.rho[1], "aria-valuetext": `ρ = ${words(state.rho)}` });
}

export function sayTime(x, { eye }) {
  const { t, steps } = x.state, at = between(t, 0, eye.slow.length - 1), says = `outer step ${t} of ${steps}, λ ${words(eye.sharp[at])}, loss ${words(eye.losses[at])}`;
  mark(x.time.element, { "aria-valuenow": t, "aria-valuemax": steps - 1, "aria-valuetext": says });
  say(x.parts.timeSays, says);
}

export function sayStep(x, scene, { arrows, phase }) {
  const { parts, player, alphaLine: line, state: { t, momentum } } = x, on = arrows[Math.max(Math.ceil(phase) - 1, 0)], moving = phase < arrows.length || player.playing;
  const way = x.setup.axes[x.eye()].includes("alpha") && line && !moving, alpha = line && arrows.at(-1).alpha;
  x.alphaHandle.put(way ? line.at : null, { "aria-valuenow": +(alpha || 0).toFixed(4), "aria-valuemin": 0, "aria-valuemax": 1, "aria-valuetext": `α = ${words(alpha || 0, 2)}` });
  say(parts.lensCaption, !arrows.length ? (scene.waiting ? "" : moment(scene.toy, scene.eye, t)) : phase === 0 ? `At the slow weights φ, step ${t}.` : !moving ? "Climb, descend, interpolate: press Play or Step." : caption(scene.toy, on));
  say(parts.play, player.playing ? "Pause" : "▶ Play");
  mark(parts.scrub, { max: Math.max(arrows.length, 1), "aria-valuetext": arrows.length ? caption(scene.toy, on) : "" });
  put(parts.scrub, "value", phase);
  showFormulas(parts.formulas, formulas(x.eye(), momentum), moving && phase > 0 ? on?.kind : null);
}

export function sayControls(x, scene) {
  const { state, parts, toy, setup } = x, used = [...new Set([...state.methods, x.eye()])], moves = (axis) => used.some((m) => setup.axes[m].includes(axis));
  for (const [name, control] of Object.entries(x.numbers)) control.update(["k", "rho", "alpha"].includes(name) && !moves(name));
  const look = scene.colors;
  for (const role in scene.roles) put(x.root, `--lb-${role}`, scene.roles[role]);
  for (const { method, chip, data } of parts.chips) {
    const run = state.methods.includes(method) ? x.run(method) : null, end = run && ending(run);
    mark(chip, { "aria-pressed": state.methods.includes(method) });
    put(chip, "color", look[method]);
    say(data, end ? [end.sharp && `λ ${end.sharp}`, end.short, `${end.gradients} gradients`].filter(Boolean).join(" · ") : "");
  }
  if (parts.lensOf) put(parts.lensOf, "value", state.lens);
  if (parts.curve) put(parts.curve, "value", state.curve);
  put(parts.loss, "value", toy.name);
  say(parts.formula, `L = ${toy.formula}`);
  say(parts.lesson, toy.lesson);
  if (!x.map) return;
  mark(parts.ends, { "aria-pressed": Boolean(state.ends) });
  put(parts.ends, "hidden", toy.kernel);
  put(parts.endsBox, "hidden", !state.ends || toy.kernel);
  put(parts.endsBy, "value", state.ends || "place");
  put(parts.endsOf, "value", x.eye());
  say(parts.caption, x.momentNow(scene));
}
