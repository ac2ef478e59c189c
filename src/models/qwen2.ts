/** Qwen 2 and 2.5: Llama with biases on queries, keys and values alone. */
import { z } from "zod";
import { GatedMLP } from "../nn";
import {
  type AttentionType,
  checkHeads,
  checkLayerTypes,
  denseFields,
  layerType,
  maskOf,
  ropeOf,
  size,
  slidingFields,
} from "./args";
import { denseAwq } from "./awq-facts";
import { decoder } from "./gguf/decoder";
import { CausalLM } from "./language-model";
import * as llama from "./llama";

export const Args = z
  .object({
    ...denseFields,
    ...slidingFields,
    num_key_value_heads: size,
  })
  .superRefine(checkHeads)
  .superRefine(checkLayerTypes);

/** The attention of a layer. */
export function attentionOf(args: llama.AttentionArgs, layerType: AttentionType, base = 1_000_000): llama.Attention {
  const rope = ropeOf(args, { base, layerType });
  return new llama.Attention({ ...args, attention_bias: true }, { rope, outputBias: false });
}

export class Model extends CausalLM {
  constructor(args: z.infer<typeof Args>) {
    super(args, (index) => {
      const type = layerType(args, index);
      return new llama.Block(
        attentionOf(args, type),
        new GatedMLP(args.hidden_size, args.intermediate_size),
        args,
        maskOf(type, args),
      );
    });
  }
}

export const awq = denseAwq();

export const gguf = decoder("qwen2", { ropeBase: 1_000_000 });
