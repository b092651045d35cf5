// The map of basins as it is shown: colours, legend, and words.

import { words } from "../shared/drawing.js";
import { Basins, scale } from "./basins.js";
import { legend, percent } from "./layout.js";

// The colours of the minima, by number, and of starts that end elsewhere (−1) or diverge (−2).
const PLACES = [[38, 103, 178], [230, 140, 40], [40, 160, 120], [170, 90, 190], [150, 150, 30], [90, 90, 140]], NOWHERE = [[200, 200, 200], [70, 70, 70]];

export class Ends {
  // `x`: the explorer.
  constructor(x) {
    Object.assign(this, { x, basins: new Basins(() => x.draw()), says: "", key: "" });
  }

  image() {
    const { x, basins } = this, { state, toy, map, theme } = x;
    if (!state.ends || toy.kernel) {
      basins.stop();
      return null;
    }
    basins.want(toy, { ...x.setting(x.eye()), start: [0, 0] }, map.width, map.height);
    if (!basins.shown) return null;
    const key = [basins.key, basins.shown.block, state.ends, theme.paper].join();
    if (this.key === key) return this.picture;
    const top = state.ends === "sharpness" ? basins.top() : 0;
    const color = state.ends === "sharpness" ? (n) => (basins.at[n] === -2 ? this.pale(NOWHERE[1]) : this.pale(scale(basins.sharp[n] / top))) : (n) => this.colorOf(basins.at[n]);
    const made = document.createElement("canvas");
    Object.assign(made, { width: basins.W, height: basins.H });
    made.getContext("2d").putImageData(basins.image(color), 0, 0);
    Object.assign(this, { key, picture: made });
    legend(x.parts.legend, this.rows(top));
    return made;
  }

  // Nearer to the paper: the paths stand out.
  pale(color) { return color.map((v, i) => Math.round(v + 0.4 * (this.x.theme.paper[i] - v))); }

  colorOf(place) { return this.pale(place < 0 ? NOWHERE[-place - 1] : PLACES[place]); }

  rows(top) {
    const { basins, x } = this, { share, all } = basins.shares(), css = (c) => `rgb(${c.join(" ")})`;
    const places = [...basins.minima.map((p, n) => [n, this.nameOf(p)]), [-1, "elsewhere"], [-2, "nowhere: diverged"]].filter(([n]) => share(n) > 0);
    this.says = `${x.eye()} from ${all} starts: ${places.map(([n, name]) => `${percent(share(n))} end ${n < 0 ? "" : "at "}${name}`).join("; ")}.`;
    if (x.state.ends !== "sharpness") return places.map(([n, name]) => [css(this.colorOf(n)), `${name}: ${percent(share(n))}`]);
    const marks = [0, 0.5, 1].map((s) => [css(this.pale(scale(s))), `λ ${words(s * top, 2)}${s === 1 ? " and more" : ""}`]);
    return share(-2) ? [...marks, [css(this.colorOf(-2)), "diverged"]] : marks;
  }

  nameOf(p) { return `(${p.map((v) => words(v, 2)).join(", ")}), λ ${words(this.x.toy.sharpness(p), 2)}`; }
}
