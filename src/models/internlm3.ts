/** InternLM 3: Llama with names of its own for biases. */
import { z } from "zod";
import { GatedMLP } from "../nn";
import { checkHeads, denseFields, ropeOf, size } from "./args";
import { denseAwq } from "./awq-facts";
import { decoder } from "./gguf/decoder";
import type { GgufDescription } from "./gguf/facts";
import { withinContext } from "./gguf/rope";
import { CausalLM } from "./language-model";
import * as llama from "./llama";

export const Args = z
  .object({
    ...denseFields,
    /** Of the last projection of attention, and of the feed-forward block. */
    bias: z.boolean().default(false),
    qkv_bias: z.boolean().default(false),
    max_position_embeddings: size.default(32_768),
    tie_word_embeddings: z.boolean().default(false),
  })
  .superRefine(checkHeads);

export class Model extends CausalLM {
  constructor(args: z.infer<typeof Args>) {
    const { hidden_size: D, intermediate_size: hidden, bias, qkv_bias: attention_bias } = args;
    const attention = () => new llama.Attention({ ...args, attention_bias }, { rope: ropeOf(args), outputBias: bias });
    super(args, () => new llama.Block(attention(), new GatedMLP(D, hidden, { bias }), args));
  }
}

export const awq = denseAwq();

/** Files call it Llama, which it is unless biases stand where Llama has none. */
export const gguf = decoder("llama", {
  pairsRows: true,
  common: withinContext,
  matches(file) {
    const [inputs, output, down] = ["attn_q", "attn_output", "ffn_down"].map((part) => hasBias(file, part));
    return inputs !== output && output === down;
  },
  read: (file) => ({ qkv_bias: hasBias(file, "attn_q"), bias: hasBias(file, "attn_output") }),
});

function hasBias(file: GgufDescription, part: string): boolean {
  return file.shape(`blk.0.${part}.bias`) !== undefined;
}
