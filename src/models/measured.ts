/** What `bun run docs` finds in a small model of each architecture. */

export type Share = "all" | "some" | "none";

export interface Measured {
  caches: readonly string[];
  /** It has plain linear layers, which adapters and quantizers take. */
  linear: boolean;
  /** How much of its layers is divided among processes. */
  ranks: Share;
}

/** By the architecture's own name. */
export type MeasuredFacts = Readonly<Record<string, Measured>>;
