/** Processing the prompt: all of it but the last token, in chunks. */
import { ExitCode, UserError } from "../errors";
import { breathe } from "../macrotask";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import type { Cache, LanguageModel } from "../models";
import { checkKvQuantization, groupOf } from "../nn";
import { ChunkRunner } from "./chunk-runner";
import { type KvQuantizationOptions, quantizeCaches } from "./kv-quantization";
import { checkMemory } from "./memory-cap";

export interface PrefillOptions {
  /** How many prompt tokens are processed at a time; `usualStepSize` where absent. */
  prefillStepSize?: number;
  /** Pack the KV cache from some length on. */
  kvQuantization?: KvQuantizationOptions;
  /** Stop with an error when more bytes than this are in use. */
  maxMemory?: number;
  /** Embeddings (T, D) of the prompt's tokens, in place of the model's own. */
  inputEmbeddings?: Tensor;
  /** Called after each chunk of the prompt; on CUDA when it is under way and the one ahead of it is done. */
  onPrefill?: (done: number, total: number) => void;
  /** Ends the loop between two steps. */
  signal?: AbortSignal;
}

/**
 * mlx-lm's 2,048 tokens, and twice as many where GPUs share each layer: then two of them have as much to do in a step as one GPU has, and make
 * half as many sums. More was not measured, and needs more memory on each.
 */
export const usualStepSize = (model: object): number => (groupOf(model)?.isNccl ? 4096 : 2048);

/** @throws UserError for an empty prompt, or ids that a model with so many does not know */
export function checkPrompt(prompt: readonly number[], vocabSize: number): void {
  if (prompt.length === 0) {
    throw new UserError("the prompt is empty", { code: ExitCode.usage, hint: "Give at least one word: --prompt TEXT" });
  }
  const foreign = prompt.find((id) => !Number.isInteger(id) || id < 0 || id >= vocabSize);
  if (foreign !== undefined) {
    throw new UserError(`the prompt has token ${foreign}, but the model knows only ${vocabSize}`, {
      hint: "The tokenizer and the weights do not belong together: check the model's folder.",
    });
  }
}

/** @throws UserError for embeddings that are not one for each token */
export function checkEmbeddings(prompt: readonly number[], embeddings: Tensor | undefined): void {
  if (!embeddings || (embeddings.ndim === 2 && embeddings.dim(0) === prompt.length)) return;
  throw new UserError(
    `the input embeddings have the shape (${embeddings.shape.join(", ")}), for ${prompt.length} tokens`,
    {
      hint: "Give one row for each token of the prompt.",
    },
  );
}

/**
 * Feeds all of the prompt but its last token to the model, and returns that one, (1).
 * @throws UserError for a packing of the cache that there is not, before any work
 */
export async function prefill(
  model: Pick<LanguageModel, "forward">,
  prompt: readonly number[],
  cache: Cache[],
  options: PrefillOptions,
): Promise<Tensor> {
  const {
    prefillStepSize = usualStepSize(model),
    kvQuantization,
    maxMemory,
    inputEmbeddings,
    onPrefill,
    signal,
  } = options;
  if (kvQuantization) checkKvQuantization(kvQuantization);
  const tokens = mx.array(prompt, "uint32");
  const chunks = new ChunkRunner();
  try {
    const total = prompt.length;
    onPrefill?.(0, total);
    for (let done = 0; total - done > 1 && !signal?.aborted; ) {
      const count = Math.min(prefillStepSize, total - done - 1);
      mx.distributed.evaluatedHereOrNever(() => {
        mx.scope(() => {
          const chunk = mx.slice(done, done + count);
          const embeddings = inputEmbeddings?.at(chunk).expandDims(0);
          model.forward(tokens.at(chunk).reshape(1, -1), { cache, inputEmbeddings: embeddings });
        });
        quantizeCaches(cache, kvQuantization);
        chunks.run(cache, count);
      });
      mx.clearSurplus();
      if (maxMemory !== undefined) chunks.settle();
      checkMemory(maxMemory);
      done += count;
      onPrefill?.(done, total);
      await breathe();
    }
    chunks.finish(cache);
    return tokens.at(mx.slice(-1));
  } finally {
    chunks.dispose();
    tokens.dispose();
  }
}
