/** OLMo 3: OLMo 2 with a sliding window in three of four layers, whose positions are never stretched. */
import { z } from "zod";
import { GatedMLP } from "../nn";
import { AttentionType, checkHeads, checkLayerTypes, denseFields, maskOf, ropeOf, size } from "./args";
import { CausalLM } from "./language-model";
import { Attention, PostNormBlock } from "./olmo2";

export const Args = z
  .object({
    ...denseFields,
    tie_word_embeddings: z.boolean().default(false),
    sliding_window: size,
    layer_types: z.array(AttentionType).nullish(),
  })
  .superRefine(checkHeads)
  .superRefine(checkLayerTypes);

export class Model extends CausalLM {
  constructor(args: z.infer<typeof Args>) {
    super(args, (index) => {
      const type = args.layer_types?.[index] ?? ((index + 1) % 4 === 0 ? "full_attention" : "sliding_attention");
      const rope = ropeOf(args, { layerType: type });
      const attention = new Attention(args, type === "sliding_attention" ? { ...rope, scaling: null } : rope);
      const mlp = new GatedMLP(args.hidden_size, args.intermediate_size);
      return new PostNormBlock(attention, mlp, args, maskOf(type, args));
    });
  }
}
