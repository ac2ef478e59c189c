/** OLMo 3: OLMo 2 with a sliding window in three of four layers, whose positions are never stretched. */
import { z } from "zod";
import { GatedMLP } from "../nn";
import { AttentionType, checkHeads, checkLayerTypes, denseFields, maskOf, ropeOf, size } from "./args";
import { decoder } from "./gguf/decoder";
import { TensorNames } from "./gguf/names";
import { CausalLM } from "./language-model";
import { Attention, normedLayer, PostNormBlock } from "./olmo2";

export const Args = z
  .object({
    ...denseFields,
    tie_word_embeddings: z.boolean().default(false),
    sliding_window: size,
    layer_types: z.array(AttentionType).nullish(),
  })
  .superRefine(checkHeads)
  .superRefine(checkLayerTypes);

type Args = z.infer<typeof Args>;

const typeOf = ({ layer_types }: Pick<Args, "layer_types">, index: number): AttentionType =>
  layer_types?.[index] ?? ((index + 1) % 4 === 0 ? "full_attention" : "sliding_attention");

export class Model extends CausalLM {
  constructor(args: Args) {
    super(args, (index) => {
      const type = typeOf(args, index);
      const rope = ropeOf(args, { layerType: type });
      const attention = new Attention(args, type === "sliding_attention" ? { ...rope, scaling: null } : rope);
      const mlp = new GatedMLP(args.hidden_size, args.intermediate_size);
      return new PostNormBlock(attention, mlp, args, maskOf(type, args));
    });
  }
}

export const gguf = decoder("olmo2", {
  matches: (file) => (file.number("attention.sliding_window") ?? 0) > 0,
  names: new TensorNames(normedLayer),
  windows: { period: 4, typeOf: (args, index) => typeOf(args as unknown as Args, index) },
  only: { attention_bias: false, tie_word_embeddings: false },
});

export { awq } from "./olmo2";
