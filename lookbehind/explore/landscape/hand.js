// What a hand on the pictures changes, and what is read under it.

import { nearest } from "../shared/canvas.js";
import { drag, put, say } from "../shared/controls.js";
import { between } from "../shared/drawing.js";
import { REACH, placeInWords, placeOf, readAt } from "./panels.js";

const TURN_PX = 120; // of a drag, for one radian
const middleOf = ({ x, y, size, wide = size, tall = size }) => [x + wide / 2, y + tall / 2];

export function hands(x) {
  const canvas = x.over.element, place = (event) => [event.offsetX, event.offsetY];
  let held = null, from = null;
  drag(canvas, {
    begin: (event) => {
      from = place(event);
      const panel = panelAt(x, from);
      held = x.state.mode === "surface" ? "turn" : panel && onRing(x, panel, from) ? panel : null;
      return Boolean(held);
    },
    move: (event) => {
      const to = place(event);
      if (held === "turn") x.turn(x.azimuth - (to[0] - from[0]) / TURN_PX, x.elevation + (to[1] - from[1]) / TURN_PX);
      else moveGrip(x, to, held);
      from = to;
    },
    end: () => (held = null),
  });
  canvas.addEventListener("pointermove", (event) => held || hover(x, place(event)));
  canvas.addEventListener("click", (event) => hover(x, place(event)));
  canvas.addEventListener("pointerleave", () => hideTip(x));
}

function panelAt(x, [u, v]) {
  return x.scene?.panels.find(({ box: { x: left, y, size, wide = size, tall = size } }) => u >= left && u <= left + wide && v >= y && v <= y + tall);
}

// How far from the network a place of a panel is, in units of the weights.
function reachOf({ half }, { box, net }, [u, v]) {
  const [x, y] = middleOf(box);
  return Math.hypot(u - x, v - y) * (2 / box.size) * half * net.unit;
}

function onRing(x, panel, at) {
  if (!panel.grid || !x.state.layers.includes("ball")) return false;
  const width = ((2 * REACH) / panel.box.size) * x.scene.half * panel.net.unit;
  return Math.abs(reachOf(x.scene, panel, at) - x.state.rho) < width;
}

// ρ becomes the nearest radius for which there is a climb. Without a height, the hand is level.
export function moveGrip(x, [u, v], panel = x.scene.panels[0]) {
  const { half, nets } = x.scene, [across, down] = middleOf(panel.box), { radii } = x.setup;
  const reach = panel.profile ? (Math.abs(u - across) / panel.box.wide) * 2 * half * nets[0].unit : reachOf(x.scene, panel, [u, v ?? down]);
  x.set({ rho: radii[nearest(radii.map(Math.log), Math.log(Math.max(reach, radii[0])))] });
}

// ---- what is read ------------------------------------------------------------------------------

function hover(x, at) {
  const far = ({ at: [u, v] }) => Math.hypot(u - at[0], v - at[1]);
  const spot = x.spots.filter((s) => far(s) < REACH).sort((a, b) => far(a) - far(b))[0];
  write(x, spot?.words ?? measured(x, at), at);
}

// What was measured under a place of the picture.
function measured({ scene }, at) {
  const panel = panelAt({ scene }, at);
  if (!panel || (!panel.profile && !panel.grid)) return "";
  const { box } = panel, u = (at[0] - box.x) / (box.wide ?? box.size), v = (at[1] - box.y) / (box.tall ?? box.size);
  const [p, q] = panel.profile ? [2 * u - 1, 0] : scene.solid ? cornerAt(scene, panel, [u, v], at) : onGrid(panel, 2 * u - 1, 1 - 2 * v);
  if (p === undefined) return "";
  return [placeInWords(scene, p, q), ...(panel.profile ? scene.nets : [panel.net]).map((net) => readAt(net, scene, p, q))].join("\n");
}

const onGrid = ({ grid: { columns, rows } }, p, q) => [[p, columns], [q, rows]].map(([v, n]) => (2 * Math.round(((v + 1) / 2) * (n - 1))) / (n - 1) - 1);

// Of the cell that is drawn there the nearest corner; nothing where none is drawn.
function cornerAt(scene, panel, place, at) {
  const found = panel.surface.at(place, panel.grid), { columns, rows } = panel.grid;
  if (!found) return [];
  const corners = [[0, 0], [1, 0], [0, 1], [1, 1]].map(([i, j]) => [(2 * (found[0] + i)) / (columns - 1) - 1, (2 * (found[1] + j)) / (rows - 1) - 1]);
  const far = ([p, q]) => Math.hypot(...placeOf(panel, scene, p * scene.half, q * scene.half).map((v, i) => v - at[i]));
  return corners.sort((a, b) => far(a) - far(b))[0];
}

// What is measured at one place of every plane, [p, q] in [−1, 1]².
export const read = (scene, [p, q]) => [placeInWords(scene, p, q), ...scene.nets.map((net) => readAt(net, scene, p, q)).filter(Boolean)];

// The read-out point's words, beside its cross on the first panel.
export function showTip(x, cross) {
  if (cross) write(x, read(x.scene, x.probe).join("\n"), cross);
}

export function hideTip(x) { put(x.parts.tip, "hidden", true); }

function write(x, text, [u, v]) {
  const { tip } = x.parts;
  put(tip, "hidden", !text);
  if (!text) return;
  say(tip, text);
  const wide = tip.offsetWidth, left = u + 14 + wide > x.across ? u - 14 - wide : u + 14;
  tip.style.transform = `translate(${Math.round(between(left, 0, Math.max(x.across - wide, 0)))}px, ${Math.round(between(v + 12, 0, x.height - tip.offsetHeight))}px)`;
}
