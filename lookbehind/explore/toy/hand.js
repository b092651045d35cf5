// What a hand on the pictures changes.

import { drag } from "../shared/controls.js";
import { between, project, unproject } from "../shared/drawing.js";
import { mapView, reach } from "./pictures.js";

const viewOfMap = (x) => mapView(x.toy, x.map.width, x.map.height);

export function moveStart(x, [u, v]) {
  const { width, height } = x.map;
  x.set({ start: unproject(viewOfMap(x), [between(u, 0, width), between(v, 0, height)]) });
}

export function moveRing(x, [u]) {
  const { at, unit } = reach(x.now), view = viewOfMap(x), across = (Math.max(u - project(view, at)[0], 0) / view.width) * (view.x1 - view.x0);
  x.set({ rho: +between(across / unit, ...x.setup.limits.rho).toFixed(3) });
}

export function moveAlpha(x, [u, v]) {
  const { from, to } = x.alphaLine ?? {};
  if (!from) return;
  const [dx, dy] = [to[0] - from[0], to[1] - from[1]];
  const share = ((u - from[0]) * dx + (v - from[1]) * dy) / (dx * dx + dy * dy || 1);
  x.set({ alpha: +between(share, 0, 1).toFixed(2), adaptive: false });
}

// A mouse drags the start from anywhere; a finger taps, so that it can scroll past the map.
export function tapMap(x, canvas) {
  const at = (event) => [event.offsetX, event.offsetY];
  drag(canvas, { begin: (event) => event.pointerType === "mouse" && moveStart(x, at(event)) === undefined, move: (event) => moveStart(x, at(event)) });
  canvas.addEventListener("click", (event) => event.pointerType !== "mouse" && moveStart(x, at(event)));
}

export function scrubTime(x, canvas) {
  const go = (event) => x.set({ t: x.timeAt(event.offsetX) });
  drag(canvas, { begin: go, move: go });
  canvas.addEventListener("keydown", (event) => {
    const { t, steps } = x.state, to = { ArrowRight: t + 1, ArrowUp: t + 1, ArrowLeft: t - 1, ArrowDown: t - 1, PageUp: t + 10, PageDown: t - 10, Home: 0, End: steps - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    x.set({ t: to });
  });
}
