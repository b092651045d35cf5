// How fast a run is, from what came of it in the last seconds.

import { words } from "../shared/drawing.js";

const WINDOW_MS = 10_000;

export class Speed {
  constructor() { Object.assign(this, { key: null, seen: [] }); }

  // Where a run is: epoch, images a second, time left.
  words(run, under, now = performance.now()) {
    const parts = [`epoch ${words(run.row.epochs, 4)} of ${words(run.budget, 6)}`], { share, images } = run;
    if (!under) return parts[0];
    if (run.key !== this.key || run.state !== "running") Object.assign(this, { key: run.key, seen: [] });
    if (this.seen.at(-1)?.images !== images) this.seen.push({ now, share, images });
    while (this.seen.length > 2 && this.seen[1].now < now - WINDOW_MS) this.seen.shift();
    const [first, last] = [this.seen[0], this.seen.at(-1)], passed = (last.now - first.now) / 1000;
    if (run.state !== "running" || passed < 0.2) return parts[0];
    parts.push(`${Math.round((last.images - first.images) / passed).toLocaleString("en")} images/s`);
    if (last.share > first.share) parts.push(`${duration(((1 - last.share) * passed) / (last.share - first.share))} left`);
    return parts.join(" · ");
  }
}

// 3 s, 2 min 05 s, 1 h 10 min.
export function duration(seconds) {
  const whole = Math.round(seconds), minutes = Math.floor(whole / 60), two = (n) => String(n).padStart(2, "0");
  if (minutes >= 60) return `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
  return minutes ? `${minutes} min ${two(whole % 60)} s` : `${whole} s`;
}
