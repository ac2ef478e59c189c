/**
 * Pipeline parallelism: each process has some layers of a trunk, one behind the other. Huang et al. 2019, arXiv:1811.06965.
 */
import type { distributed, Tensor } from "../mlx";
import * as mx from "../mlx";

let isSilent = false;

/** Builds what nobody evaluates: a trunk of several processes sends nothing meanwhile, and nothing waits for its sums. */
export function withoutMessages<T>(build: () => T): T {
  const before = isSilent;
  isSilent = true;
  try {
    return mx.distributed.evaluatedHereOrNever(build);
  } finally {
    isSilent = before;
  }
}

/** A process's place among those that a trunk runs through. */
export class Stage {
  constructor(private readonly group: distributed.Group) {}

  /** Which of `count` layers this process has. */
  layers(count: number): readonly [start: number, end: number] {
    const edge = (rank: number) => Math.floor((count * rank) / this.group.size);
    return [edge(this.group.rank), edge(this.group.rank + 1)];
  }

  /**
   * Embeddings x (B, T, D), the same on all processes → the hidden states behind all layers, on all of them.
   * @param own this process's layers
   */
  run(x: Tensor, own: (x: Tensor) => Tensor): Tensor {
    const { group } = this;
    const { rank, size } = group;
    if (isSilent) return own(x);
    if (!group.sends) return this.#passBySums(x, own);
    const before = rank === 0 ? x : mx.distributed.recvLike(x, rank - 1, { group });
    let after = own(before).astype(x.dtype);
    if (rank < size - 1) after = mx.distributed.send(after, rank + 1, { group });
    // Now, not when they are read: the next process waits for a prompt's hidden states, which nobody reads here, and
    // processes must exchange things in one order.
    mx.asyncEval(after);
    const all = mx.distributed.allGather(after, { group });
    const batch = x.dim(0);
    return mx.sliceAxis(all, 0, (size - 1) * batch, size * batch);
  }

  /** The same where ranks cannot send: what a stage makes is the sum of it and everyone else's zeros. */
  #passBySums(x: Tensor, own: (x: Tensor) => Tensor): Tensor {
    const { group } = this;
    let hidden = x;
    for (let stage = 0; stage < group.size; stage++) {
      const isOwn = stage === group.rank;
      // Sums are made in one order everywhere, those of zeros too.
      const part = isOwn ? own(hidden).astype(x.dtype) : mx.depends([mx.zerosLike(x)], [hidden])[0]!;
      hidden = mx.distributed.allSum(part, { group });
    }
    mx.asyncEval(hidden);
    return hidden;
  }
}
