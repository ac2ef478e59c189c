/** MiMo: Qwen 2 without sliding windows, and with draft layers. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import { GatedMLP } from "../nn";
import { checkHeads, denseFields, size } from "./args";
import { denseAwq } from "./awq-facts";
import { decoder } from "./gguf/decoder";
import { CausalLM } from "./language-model";
import { Block } from "./llama";
import { draftTensors, type MtpFacts } from "./mtp/facts";
import { LayeredHead } from "./mtp/layered-head";
import { attentionOf } from "./qwen2";

export const Args = z
  .object({
    ...denseFields,
    num_key_value_heads: size,
    max_position_embeddings: size.default(32_768),
    tie_word_embeddings: z.boolean().default(false),
  })
  .superRefine(checkHeads);

type Args = z.infer<typeof Args>;

const block = (args: Args) =>
  new Block(attentionOf(args, "full_attention", 10_000), new GatedMLP(args.hidden_size, args.intermediate_size), args);

export class Model extends CausalLM {
  constructor(args: Args) {
    super(args, () => block(args));
  }

  /** Leaves out the draft layers. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const kept = [...weights].filter(([name]) => !name.startsWith("model.mtp_layers."));
    return super.sanitize(new Map(kept));
  }
}

const names = {
  embedding: "token_layernorm",
  hidden: "hidden_layernorm",
  projection: "input_proj",
  last: "final_layernorm",
};

export const mtp: MtpFacts = {
  sanitize: (weights) => draftTensors(weights, (name) => /^mtp_(layers\.\d+\..+)$/.exec(name)?.[1] ?? null),
  head(trunk, args: Args, depth) {
    const blocks = Array.from({ length: depth }, () => block(args));
    return new LayeredHead(trunk, blocks, args, { names, hiddenFirst: true });
  },
};

export const awq = denseAwq();

/** llama.cpp has it as Qwen 2. */
export const gguf = decoder("qwen2");
