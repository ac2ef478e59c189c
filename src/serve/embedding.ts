/** Texts as vectors: a language model's hidden states behind its last norm, pooled to one and brought to length 1. */
import { join } from "node:path";
import { z } from "zod";
import { hiddenStates } from "../generate/hidden-states";
import { together } from "../generate/ranks/lost";
import { tellStates } from "../generate/ranks/orders";
import { inTurn } from "../generate/ranks/turns";
import { breathe } from "../macrotask";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { isLaunched } from "../mlx/group-environment";
import type { LanguageModel } from "../models";
import { invalid } from "./api-error";
import type { ServedModel } from "./models/served-model";

/** How the states of all tokens become one: their mean, or the last one, which has seen all others. */
export type Pooling = "mean" | "last";

export interface EmbeddingOptions {
  /** The checkpoint's own where it says so (sentence-transformers' 1_Pooling), else the mean. */
  pooling?: Pooling;
  /** Only the first so many numbers, brought to length 1 again. */
  dimensions?: number;
}

export interface Embeddings {
  vectors: Float32Array[];
  pooling: Pooling;
  tokens: number;
}

/** @throws ApiError for an empty text, one that is too long, or a model whose states cannot be read */
export async function embed(
  served: ServedModel,
  inputs: readonly (readonly number[])[],
  { pooling, dimensions }: EmbeddingOptions,
  signal: AbortSignal,
): Promise<Embeddings> {
  const how = pooling ?? (await ownPooling(served.folder));
  const vectors: Float32Array[] = [];
  for (const [i, input] of inputs.entries()) {
    if (input.length === 0) throw invalid(`text ${i + 1} is empty`, "input");
    const { contextLength } = served;
    if (contextLength !== null && input.length > contextLength) {
      throw invalid(`text ${i + 1} has ${input.length} tokens, the model takes ${contextLength}`, "input");
    }
    const foreign = input.find((id) => id >= served.model.vocabSize);
    if (foreign !== undefined) throw invalid(`there is no token ${foreign} in the model`, "input");
    // Ranks compute one thing after the other: a text has its place between answers.
    const place = isLaunched() ? await served.scheduler.enter(input.length, 0, signal) : null;
    try {
      if (signal.aborted) break;
      vectors.push(await inTurn(() => vectorOf(served.model, input, how, dimensions)));
    } finally {
      place?.leave();
    }
    await breathe();
  }
  return { vectors, pooling: how, tokens: inputs.reduce((sum, { length }) => sum + length, 0) };
}

function statesOf(model: LanguageModel, tokens: readonly number[]): Tensor {
  if (!isLaunched()) return hiddenStates(model, tokens);
  tellStates(model, tokens);
  return together(() => hiddenStates(model, tokens));
}

function vectorOf(
  model: LanguageModel,
  tokens: readonly number[],
  pooling: Pooling,
  dimensions?: number,
): Float32Array {
  return mx.scope(() => {
    const states = statesOf(model, tokens).squeeze(0).astype("float32");
    const whole = pooling === "mean" ? states.mean({ axis: 0 }) : states.at(-1);
    if (dimensions !== undefined && dimensions > whole.size) {
      throw invalid(`the model's vectors have ${whole.size} numbers, not ${dimensions}`, "dimensions");
    }
    const cut = dimensions === undefined ? whole : whole.at(mx.slice(0, dimensions));
    const length = mx.maximum(cut.square().sum().sqrt(), 1e-12);
    return cut.divide(length).toArray() as Float32Array;
  });
}

const poolingConfig = z.looseObject({ pooling_mode_lasttoken: z.boolean().default(false) });

/** What sentence-transformers wrote beside a model that was trained for it. */
async function ownPooling(folder: string): Promise<Pooling> {
  const file = Bun.file(join(folder, "1_Pooling", "config.json"));
  const config = poolingConfig.safeParse(await file.json().catch(() => null));
  return config.data?.pooling_mode_lasttoken ? "last" : "mean";
}
