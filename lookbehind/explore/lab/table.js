// The table of runs: its rows are the legend of the curves.

import { download, element, mark, put, say } from "../shared/controls.js";
import { words } from "../shared/drawing.js";

const COMMON = ["model", "dataset", "seed"]; // said once where all runs share them

const HEADS = { rho: "ρ", alpha: "α", "test accuracy": "test", "training accuracy": "training" };

const cell = (value) => (value === null ? "" : typeof value === "number" ? words(value, 4) : String(value));
const quoted = (value) => (value === null ? "" : /[",\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value));

export class Table {
  constructor(root, lab) {
    Object.assign(this, { lab, key: "", rows: new Map(), runs: [] });
    this.caption = element("p", root, { className: "lb-soft lb-caption", hidden: true });
    this.box = element("div", root, { className: "lb-table", tabIndex: 0, hidden: true }, { role: "region", "aria-label": "runs" });
    this.table = element("table", this.box);
    this.head = element("tr", element("thead", this.table));
    this.body = element("tbody", this.table);
  }

  show(runs) {
    this.runs = runs;
    for (const part of [this.caption, this.box]) put(part, "hidden", !runs.length);
    if (!runs.length) return;
    const shared = COMMON.filter((name) => new Set(runs.map(({ row }) => row[name])).size === 1);
    const columns = Object.keys(runs[0].row).filter((name) => name !== "method" && !shared.includes(name) && runs.some(({ row }) => row[name] !== null));
    const key = JSON.stringify([columns, runs.map((run) => run.key)]);
    if (key !== this.key) this.build(columns, runs);
    this.key = key;
    say(this.caption, `Hover a row to highlight its curves, press it to hide them.${shared.length ? ` All: ${shared.map((name) => `${name} ${runs[0].row[name]}`).join(", ")}.` : ""}`);
    for (const run of runs) this.fill(run, columns);
  }

  build(columns, runs) {
    const focused = [...this.rows].find(([, { legend }]) => legend === document.activeElement)?.[0];
    this.rows.clear();
    this.head.replaceChildren(...["run", ...columns].map((name) => element("th", null, { textContent: HEADS[name] ?? name, scope: "col" })));
    this.body.replaceChildren(...runs.map(({ key, row: { method } }) => {
      const tr = element("tr"), legend = element("button", element("th", tr, { scope: "row" }), { type: "button" });
      const swatch = element("canvas", legend, { width: 68, height: 20 }, { "aria-hidden": "true" });
      legend.append(method);
      legend.addEventListener("click", () => this.lab.toggle(key));
      for (const [event, lit] of [["pointerenter", key], ["pointerleave", null], ["focusin", key], ["focusout", null]]) tr.addEventListener(event, () => this.lab.light(lit));
      this.rows.set(key, { legend, swatch, tr, cells: columns.map(() => element("td", tr)) });
      return tr;
    }));
    this.rows.get(focused)?.legend.focus();
  }

  fill(run, columns) {
    const { legend, swatch, tr, cells } = this.rows.get(run.key), c = swatch.getContext("2d");
    mark(legend, { "aria-pressed": run.shown });
    put(tr, "className", run.shown ? "" : "lb-off");
    columns.forEach((name, i) => say(cells[i], cell(run.row[name])));
    const look = `${run.color} ${run.dash}`;
    if (swatch.look === look) return;
    swatch.look = look;
    c.setTransform(2, 0, 0, 2, 0, 0);
    c.clearRect(0, 0, 34, 10);
    Object.assign(c, { strokeStyle: run.color, lineWidth: 2.4 });
    c.setLineDash(run.dash);
    c.beginPath();
    c.moveTo(0, 5);
    c.lineTo(34, 5);
    c.stroke();
  }

  download() {
    const runs = this.runs.filter(({ row }) => !/running|paus/.test(row.status)).map(({ row }) => row);
    const lines = [Object.keys(this.runs[0].row), ...runs.map((row) => Object.values(row))].map((row) => row.map(quoted).join(","));
    download(new Blob([`${lines.join("\r\n")}\r\n`], { type: "text/csv" }), "lookbehind-runs.csv");
  }
}
