/** Learning rates by step; steps count from 0. */

export type Schedule = (step: number) => number;

/** From `start` to `end` in `steps` steps, then `end`. */
export function linearSchedule(start: number, end: number, steps: number): Schedule {
  return (step) => start + (end - start) * Math.min(1, step / steps);
}

/** Half a cosine from `start` down to `end` in `steps` steps, then `end`. arXiv:1608.03983. */
export function cosineDecay(start: number, steps: number, end = 0): Schedule {
  return (step) => end + (start - end) * 0.5 * (1 + Math.cos((Math.PI * Math.min(step, steps)) / steps));
}

/** Schedules one after the other: each but the first begins at its boundary, counting from 0 again. */
export function joinSchedules(schedules: readonly Schedule[], boundaries: readonly number[]): Schedule {
  return (step) => {
    let which = 0;
    while (which < boundaries.length && step >= boundaries[which]!) which++;
    return schedules[which]!(step - (which > 0 ? boundaries[which - 1]! : 0));
  };
}

/** `start` · `rate`ˢᵗᵉᵖ */
export function exponentialDecay(start: number, rate: number): Schedule {
  return (step) => start * rate ** step;
}

/** `start`, multiplied by `rate` after every `size` steps. */
export function stepDecay(start: number, rate: number, size: number): Schedule {
  return (step) => start * rate ** Math.floor(step / size);
}
