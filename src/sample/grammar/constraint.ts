/**
 * What holds an answer to a grammar: a matcher that goes along with its tokens. Before the grammar begins there may be a
 * part that is free, such as a thought.
 */
import type { grammar as native } from "../../mlx";

/** A part of an answer that is free: it begins with one sequence of tokens, and ends with another. */
export interface FreePart {
  start: readonly number[];
  /** Null where it goes on to the end of the answer. */
  end: readonly number[] | null;
}

export interface ConstraintOptions {
  /** The answer begins in a free part, which this ends. */
  opensWith?: readonly number[] | null;
  /** Free parts that may come before what the grammar holds. */
  parts?: readonly FreePart[];
  /** Tokens that end the answer: they cannot end a free part that has an end of its own. */
  stops?: Iterable<number>;
}

/** Where an answer stands: in a free part, before the grammar's first token, or behind it. */
type Phase = { type: "free"; end: readonly number[] | null } | { type: "before" } | { type: "held" };

const before: Phase = { type: "before" };
const held: Phase = { type: "held" };

export class Constraint {
  readonly #matcher: native.Matcher;
  readonly #parts: readonly FreePart[];
  readonly #openers: readonly number[];
  readonly #stops: readonly number[];
  readonly #tokens: number[] = [];
  /** The phase before each of the tokens, and the present one. */
  readonly #phases: Phase[];

  /** Takes the matcher over. */
  constructor(matcher: native.Matcher, { opensWith = null, parts = [], stops = [] }: ConstraintOptions = {}) {
    this.#matcher = matcher;
    this.#parts = parts;
    this.#openers = [...new Set(parts.map(({ start }) => start[0]!))];
    this.#stops = [...stops];
    this.#phases = [opensWith ? { type: "free", end: opensWith } : before];
  }

  get #phase(): Phase {
    return this.#phases.at(-1)!;
  }

  /** Goes along with a token. False where the grammar does not allow it; nothing has changed then. */
  accept(token: number): boolean {
    const next = this.#after(token);
    if (next === null) return false;
    this.#tokens.push(token);
    this.#phases.push(next);
    return true;
  }

  /** The phase behind a token, null for one that may not come. */
  #after(token: number): Phase | null {
    const phase = this.#phase;
    if (phase.type === "free") {
      if (phase.end && this.#stops.includes(token)) return null;
      return phase.end && this.#ends(phase.end, token) ? before : phase;
    }
    if (phase.type === "before") {
      const part = this.#parts.find(({ start }) => start[0] === token);
      if (part) return { type: "free", end: part.end };
    }
    return this.#matcher.accept(token) ? held : null;
  }

  /** Whether the tokens and one more end with a sequence. */
  #ends(sequence: readonly number[], token: number): boolean {
    const from = this.#tokens.length + 1 - sequence.length;
    return sequence.every((one, i) => (i === sequence.length - 1 ? token : this.#tokens[from + i]) === one);
  }

  /** Takes the last `count` tokens back. */
  rollback(count: number): void {
    let matched = 0;
    for (let i = 0; i < count; i++) {
      if (this.#phases.pop()!.type === "held") matched++;
      this.#tokens.pop();
    }
    this.#matcher.rollback(matched);
  }

  /** What may follow, as a row of a mask; null where everything may. */
  row(): native.MaskRow | null {
    const phase = this.#phase;
    if (phase.type === "held") return { matcher: this.#matcher };
    if (phase.type === "before") return { matcher: this.#matcher, extras: this.#openers };
    return phase.end && this.#stops.length > 0 ? { matcher: null, without: this.#stops } : null;
  }

  /** Tokens that write the only text that may follow; empty where there is a choice. */
  forced(): readonly number[] {
    const phase = this.#phase;
    return phase.type === "held" || (phase.type === "before" && this.#openers.length === 0)
      ? this.#matcher.forced()
      : [];
  }

  /** Whether the answer may end here. */
  get isComplete(): boolean {
    const phase = this.#phase;
    return phase.type === "free" ? phase.end === null : this.#matcher.state !== "open";
  }

  dispose(): void {
    this.#matcher.dispose();
  }
}
