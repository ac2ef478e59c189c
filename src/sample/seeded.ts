/** Samplers with random numbers of their own. */
import * as mx from "../mlx";
import { drawsAs, greedy, type Sampler } from "./sampler";

export interface SeededSampler {
  readonly sampler: Sampler;
  /** Gives the state of its random numbers back. */
  dispose(): void;
}

/**
 * A sampler whose draws depend on its seed and on how often it has drawn, not on what others draw in between. It draws
 * what `sampler` draws after `mx.random.seed(seed)`.
 */
export function seeded(sampler: Sampler, seed: number): SeededSampler {
  if (sampler === greedy) return { sampler, dispose: () => {} };
  const { state } = mx.random;
  let own = mx.keep(mx.random.key(seed));
  return {
    sampler: drawsAs((logprobs) => {
      const shared = mx.keep(state.get());
      state.set(own);
      try {
        return sampler(logprobs);
      } finally {
        const next = mx.keep(state.get());
        state.set(shared);
        mx.release([shared, own]);
        own = next;
      }
    }, sampler),
    dispose: () => mx.release(own),
  };
}
