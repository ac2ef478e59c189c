/** Gradient checkpointing of blocks: less memory, as the backward pass computes each block again. Chen et al. 2016, arXiv:1604.06174. */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { type Module, PendingSum } from "../nn";
import { trainableParameters } from "./linear-to-lora";

interface Block extends Module {
  forward(...args: unknown[]): unknown;
}

/** A sum that is still to be made, in a form that MLX's transforms see the tensors of. */
interface Sum {
  x: Tensor;
  delta: Tensor;
}

const visible = (value: unknown): unknown =>
  value instanceof PendingSum ? ({ x: value.x, delta: value.delta } satisfies Sum) : value;

function original(value: unknown): unknown {
  const { x, delta } = (value ?? {}) as Partial<Sum>;
  return x && delta ? new PendingSum(x, delta) : value;
}

/**
 * Checkpoints the blocks that are of the first one's kind. Returns what undoes it. Dropout drops the same in both passes,
 * where mlx-lm draws anew in the second.
 */
export function checkpointBlocks(blocks: readonly Module[]): () => void {
  const chosen = blocks.filter((block) => block.constructor === blocks[0]!.constructor) as Block[];
  for (const block of chosen) checkpointBlock(block);
  return () => {
    for (const block of chosen) Reflect.deleteProperty(block, "forward");
  };
}

function checkpointBlock(block: Block): void {
  const forward = block.forward.bind(block);
  const run = (parameters: Tensor[], key: Tensor, ...args: unknown[]): { out: unknown; key: Tensor } => {
    const before = trainableParameters(block);
    const generator = mx.keep(mx.random.state.get());
    block.update(before.map(([path], i) => [path, parameters[i]!]));
    // Drawing has no gradient, and MLX would look for one.
    mx.random.state.set(mx.stopGradient(key));
    try {
      const out = visible(forward(...args.map(original)));
      return { out, key: mx.random.state.get() };
    } finally {
      block.update(before);
      mx.random.state.set(generator);
      mx.release(generator);
    }
  };
  block.forward = (...args) => {
    const parameters = trainableParameters(block).map(([, tensor]) => tensor);
    const { out, key } = mx.checkpoint(run)(parameters, mx.random.state.get(), ...args.map(visible));
    mx.random.state.set(mx.stopGradient(key));
    return original(out);
  };
}
