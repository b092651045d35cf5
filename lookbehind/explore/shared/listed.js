// A number that takes one of some values, in their order: `get` and `set` deal with its place.

import { Scrubbed, mark } from "./controls.js";

export class Listed extends Scrubbed {
  constructor(parent, { values, ...options }) {
    super(parent, { low: 0, high: 0, step: 1, pixels: 24, ...options });
    this.list(values);
  }

  list(values) {
    if (this.values === values) return;
    Object.assign(this, { values, high: values.length - 1, before: NaN });
    mark(this.input, { "aria-valuemax": this.high });
  }

  text(place) { return String(this.values[place]); }

  typed(done) {
    const text = this.input.value.trim().replace(",", ".").toLowerCase(), number = Number(text);
    const found = text ? this.values.findIndex((v) => Number(v) === number || (isNaN(v) && v.startsWith(text))) : -1;
    this.editing = !done;
    if (found >= 0 && found !== this.get()) this.set(found);
    if (done) this.refresh();
  }
}
