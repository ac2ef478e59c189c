/** Gradient checkpointing of blocks: less memory, as the backward pass computes each block again. Chen et al. 2016, arXiv:1604.06174. */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { intercept, type Module, PackedCache, Residual, SharingResidual } from "../nn";
import { trainableParameters } from "./linear-to-lora";

/**
 * Checkpoints the blocks that are of the first one's kind. Returns what undoes it. Dropout drops the same in both passes,
 * where mlx-lm draws anew in the second.
 */
export function checkpointBlocks(blocks: readonly Module[]): () => void {
  const chosen = blocks.filter((block) => block.constructor === blocks[0]!.constructor);
  const undo = chosen.map(checkpointBlock);
  return () => {
    for (const each of undo) each();
  };
}

function checkpointBlock(block: Module): () => void {
  return intercept(block, (forward, [x, ...others]) => {
    // MLX's transforms see tensors alone: the sum that is still to be made is made ahead of the block.
    const run = (parameters: Tensor[], key: Tensor, hidden: Tensor, ...rest: unknown[]) => {
      const before = trainableParameters(block);
      const generator = mx.keep(mx.random.state.get());
      block.update(before.map(([path], i) => [path, parameters[i]!]));
      // Drawing has no gradient, and MLX would look for one.
      mx.random.state.set(mx.stopGradient(key));
      try {
        const result = forward(new Residual(hidden), ...rest.map(fromTree)) as Residual;
        const shared =
          result instanceof SharingResidual ? [result.rows.keys as Tensor, result.rows.values as Tensor] : [];
        // The key comes last: MLX counts no gradient for it, and would give those behind it the wrong ones.
        return { out: result.value, shared, key: mx.random.state.get() };
      } finally {
        block.update(before);
        mx.random.state.set(generator);
        mx.release(generator);
      }
    };
    const parameters = trainableParameters(block).map(([, tensor]) => tensor);
    const hidden = (x as Residual).value;
    const { out, shared, key } = mx.checkpoint(run)(parameters, mx.random.state.get(), hidden, ...others.map(asTree));
    mx.random.state.set(mx.stopGradient(key));
    const [keys, values] = shared;
    const offset = others.find((other) => other instanceof PackedCache)?.offset ?? 0;
    return keys && values ? new SharingResidual(out, { keys, values, offset }) : new Residual(out);
  });
}

/** A packed cache's tensors must be arguments: in the backward pass those of the forward pass are freed. */
interface PackedTree {
  packed: [offset: Tensor, segments: Tensor];
}

const asTree = (argument: unknown): unknown =>
  argument instanceof PackedCache ? ({ packed: [argument.offset, argument.segments] } satisfies PackedTree) : argument;

const isPacked = (argument: unknown): argument is PackedTree =>
  typeof argument === "object" && argument !== null && "packed" in argument;

const fromTree = (argument: unknown): unknown => (isPacked(argument) ? new PackedCache(...argument.packed) : argument);
