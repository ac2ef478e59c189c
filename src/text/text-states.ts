/** A text that arrives in pieces, cut at markers that change what its parts are: answer, thought, call. */

/** What stands between two states. */
export type Transition = readonly [marker: string, next: string];

/** The markers to look for in each state. A state that is not here is never left. */
export type Transitions = Record<string, readonly Transition[]>;

export interface Segment {
  state: string;
  text: string;
}

/**
 * Cuts the same way however the text is split into pieces. Markers are matched in the text, not in tokens: a marker's
 * last bracket may be one token with what follows. The marker that ends first counts, of two that end together the
 * longer. Text passes through at once, unless it may be the beginning of a marker.
 */
export class TextStates {
  #held = "";

  constructor(
    private readonly transitions: Transitions,
    public state: string,
  ) {}

  /** The pieces that are certain now, the last of them of the present state; markers are left out. */
  push(text: string): Segment[] {
    const segments: Segment[] = [];
    let rest = this.#held + text;
    for (let found = this.#find(rest); found; found = this.#find(rest)) {
      segments.push({ state: this.state, text: rest.slice(0, found.from) });
      this.state = found.next;
      rest = rest.slice(found.to);
    }
    const certain = rest.length - this.#heldLength(rest);
    segments.push({ state: this.state, text: rest.slice(0, certain) });
    this.#held = rest.slice(certain);
    return segments;
  }

  /** Gives out what was held back: no more text will come. */
  flush(): Segment {
    const text = this.#held;
    this.#held = "";
    return { state: this.state, text };
  }

  #markers(): readonly Transition[] {
    return Object.hasOwn(this.transitions, this.state) ? this.transitions[this.state]! : [];
  }

  #find(text: string): { from: number; to: number; next: string } | null {
    let first: { from: number; to: number; next: string } | null = null;
    for (const [marker, next] of this.#markers()) {
      const from = marker === "" ? -1 : text.indexOf(marker);
      const to = from + marker.length;
      // Of equal markers the one that was given last counts.
      if (from >= 0 && (!first || to < first.to || (to === first.to && from <= first.from))) first = { from, to, next };
    }
    return first;
  }

  /** How many of the last characters may be the beginning of a marker. */
  #heldLength(text: string): number {
    let held = 0;
    for (const [marker] of this.#markers()) {
      for (let length = Math.min(marker.length - 1, text.length); length > held; length--) {
        if (text.endsWith(marker.slice(0, length))) held = length;
      }
    }
    return held;
  }
}
