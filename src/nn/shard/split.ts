/** How a model is divided among the processes of a group: which part of what this one gets. */
import type { distributed } from "../../mlx";

/** A half-open range. */
export type Range = readonly [start: number, end: number];

export class Split {
  constructor(readonly group: distributed.Group) {}

  get rank(): number {
    return this.group.rank;
  }

  get size(): number {
    return this.group.size;
  }

  /**
   * This rank's part of `count` things, of which `unit` stay together. Parts differ by one unit at most.
   * @returns null where there are too few for every rank to get some
   */
  part(count: number, unit = 1): Range | null {
    const units = count / unit;
    if (!Number.isInteger(units) || units < this.size) return null;
    const edge = (rank: number) => Math.floor((units * rank) / this.size) * unit;
    return [edge(this.rank), edge(this.rank + 1)];
  }
}

export interface HeadShare {
  /** Heads of queries. */
  queries: Range;
  /** Heads of keys and values, which these queries attend to. */
  keys: Range;
  /** How many ranks have these keys. */
  copies: number;
  /** False where the rank has only a repetition of another's heads, for there are more ranks than heads. */
  counts: boolean;
  /** Whether all ranks have as many. */
  alike: boolean;
}

/**
 * The heads of a rank. Where there are at least as many heads of keys as ranks, each rank gets some of them with all
 * their queries. Else several ranks have the same head of keys, and share its queries.
 */
export function shareHeads(heads: number, kvHeads: number, { rank, size }: Pick<Split, "rank" | "size">): HeadShare {
  const group = heads / kvHeads;
  if (kvHeads >= size) {
    const edge = (rank: number) => Math.floor((kvHeads * rank) / size);
    const keys = [edge(rank), edge(rank + 1)] as const;
    return { queries: [keys[0] * group, keys[1] * group], keys, copies: 1, counts: true, alike: kvHeads % size === 0 };
  }
  const head = Math.floor((rank * kvHeads) / size);
  const sharing = Array.from({ length: size }, (_, other) => other).filter(
    (other) => Math.floor((other * kvHeads) / size) === head,
  );
  const edge = (index: number) => Math.floor((group * index) / sharing.length);
  const place = sharing.indexOf(rank);
  const [start, end] = [edge(place), edge(place + 1)];
  const counts = end > start;
  const first = head * group + Math.min(start, group - 1);
  return {
    queries: [first, counts ? head * group + end : first + 1],
    keys: [head, head + 1],
    copies: sharing.length,
    counts,
    alike: size % kvHeads === 0 && group % (size / kvHeads) === 0,
  };
}
