/** Texts as vectors: a language model's hidden states behind its last norm, pooled to one and brought to length 1. */
import { join } from "node:path";
import { z } from "zod";
import { breathe } from "../macrotask";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { isLaunched } from "../mlx/group-environment";
import type { LanguageModel } from "../models";
import type { Module } from "../nn";
import { ApiError, invalid } from "./api-error";
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
  if (isLaunched()) throw invalid("a model that is divided among ranks gives no embeddings", "model");
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
    if (signal.aborted) break;
    vectors.push(vectorOf(served.model, input, how, dimensions));
    await breathe();
  }
  return { vectors, pooling: how, tokens: inputs.reduce((sum, { length }) => sum + length, 0) };
}

function vectorOf(
  model: LanguageModel,
  tokens: readonly number[],
  pooling: Pooling,
  dimensions?: number,
): Float32Array {
  return mx.scope(() => {
    const states = hiddenStates(model, mx.array(tokens, "uint32").reshape(1, -1)).squeeze(0).astype("float32");
    const whole = pooling === "mean" ? states.mean({ axis: 0 }) : states.at(-1);
    if (dimensions !== undefined && dimensions > whole.size) {
      throw invalid(`the model's vectors have ${whole.size} numbers, not ${dimensions}`, "dimensions");
    }
    const cut = dimensions === undefined ? whole : whole.at(mx.slice(0, dimensions));
    const length = mx.maximum(cut.square().sum().sqrt(), 1e-12);
    return cut.divide(length).toArray() as Float32Array;
  });
}

type Head = Module & { forward: (x: Tensor) => Tensor; asLinear?: (x: Tensor) => Tensor };

/** Token ids (1, T) → what the model's head would get, (1, T, D). The head itself is left out. */
function hiddenStates(model: LanguageModel, ids: Tensor): Tensor {
  let states: Tensor | null = null;
  const take = (x: Tensor) => {
    states ??= x;
    return x;
  };
  const restores: (() => void)[] = [];
  for (const [name, module] of model.namedModules()) {
    const head = module as Head;
    const methods = [...(/(^|\.)lm_head$/.test(name) ? ["forward"] : []), ...(head.asLinear ? ["asLinear"] : [])];
    for (const method of methods as ("forward" | "asLinear")[]) {
      head[method] = take;
      restores.push(() => void Reflect.deleteProperty(head, method));
    }
  }
  try {
    model.forward(ids);
  } finally {
    for (const restore of restores) restore();
  }
  if (states) return states;
  throw new ApiError(400, "this model's hidden states cannot be read", { param: "model" });
}

const poolingConfig = z.looseObject({ pooling_mode_lasttoken: z.boolean().default(false) });

/** What sentence-transformers wrote beside a model that was trained for it. */
async function ownPooling(folder: string): Promise<Pooling> {
  const file = Bun.file(join(folder, "1_Pooling", "config.json"));
  const config = poolingConfig.safeParse(await file.json().catch(() => null));
  return config.data?.pooling_mode_lasttoken ? "last" : "mean";
}
