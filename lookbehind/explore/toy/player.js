// Walks through the arrows of one outer step after the other, by itself or by hand.

const ARROWS_A_SECOND = 1.25, REST = 1; // REST: arrows' time for which a finished step stays
const ALL = 1e9; // arrows: a step that was walked to its end; one that wasn't is shown whole, Infinity

export class Player {
  // `x`: the explorer, with arrows(), state.t, set and draw. `phase`: how many arrows are drawn.
  constructor(x) {
    Object.assign(this, { x, phase: Infinity, playing: null });
  }

  count() { return this.x.arrows().length; }

  // Forward or back by one arrow; false at either end.
  step(by) {
    this.stop();
    return this.move(by);
  }

  move(by) {
    const count = this.count(), { t, steps } = this.x.state;
    const from = by > 0 && this.phase === Infinity ? 0 : Math.min(this.phase, count);
    let phase = by > 0 ? Math.floor(from) + 1 : Math.ceil(from) - 1, to = t;
    if (phase > count && t < steps - 1) [phase, to] = [0, t + 1];
    else if (phase < 0 && t > 0) [phase, to] = [ALL, t - 1];
    else if (phase > count || phase < 0) return false;
    this.phase = phase;
    this.x.set({ t: to });
    return true;
  }

  scrub(phase) {
    this.stop();
    this.phase = phase;
    this.x.draw();
  }

  toggle() {
    if (this.playing) return this.stop();
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return this.move(1); // nothing moves by itself
    if (this.phase >= this.count()) this.phase = 0;
    let before = null;
    const frame = (now) => {
      if (!this.x.root.isConnected) return this.stop();
      this.phase += before === null ? 0 : ((now - before) / 1000) * ARROWS_A_SECOND;
      before = now;
      const count = this.count(), { t, steps } = this.x.state;
      if (this.phase > count + REST) {
        if (t + 1 >= steps || !count) return this.stop();
        this.phase = 0;
        this.x.set({ t: t + 1 });
      }
      this.playing = requestAnimationFrame(frame);
      this.x.drawStep();
    };
    this.playing = requestAnimationFrame(frame);
    this.x.drawStep();
  }

  stop() {
    cancelAnimationFrame(this.playing);
    this.playing = null;
    this.x.drawStep();
  }
}
