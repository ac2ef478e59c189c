/** EXAONE 4: Qwen 3's attention in OLMo 2's blocks; of layers with a pattern, those that see all have no positions. */
import { z } from "zod";
import { GatedMLP } from "../nn";
import { AttentionType, checkHeads, checkLayerTypes, denseFields, maskOf, ropeOf, size } from "./args";
import { decoder } from "./gguf/decoder";
import { TensorNames } from "./gguf/names";
import { noPlace } from "./gguf/rope";
import { CausalLM } from "./language-model";
import { normedLayer, PostNormBlock } from "./olmo2";
import { Attention } from "./qwen3";

export const Args = z
  .object({
    ...denseFields,
    num_key_value_heads: size,
    head_dim: size,
    max_position_embeddings: size,
    tie_word_embeddings: z.boolean(),
    sliding_window: size.nullish(),
    /** L for a layer that slides, G for one that sees all, over and over; a number n is n − 1 times L and one G. */
    sliding_window_pattern: z.union([z.string().regex(/^[LG]+$/), size]).nullish(),
    layer_types: z.array(AttentionType).nullish(),
  })
  .superRefine(checkHeads)
  .superRefine(checkLayerTypes)
  .superRefine(({ sliding_window, sliding_window_pattern: pattern }, context) => {
    if (!pattern || sliding_window) return;
    context.addIssue({ code: "custom", path: ["sliding_window"], message: `is missing, but there is a pattern` });
  });

type Args = z.infer<typeof Args>;

/** Whether a layer slides. */
function slidesAt({ layer_types: types, sliding_window_pattern: given }: Args, index: number): boolean {
  if (types) return types[index] === "sliding_attention";
  const pattern = typeof given === "number" ? `${"L".repeat(given - 1)}G` : given;
  return pattern ? pattern[index % pattern.length] === "L" : false;
}

export class Model extends CausalLM {
  constructor(args: Args) {
    // All layers have positions where none slides.
    const slides = Array.from({ length: args.num_hidden_layers }, (_, index) => slidesAt(args, index));
    const isMixed = slides.some((one) => one);
    super(args, (index) => {
      const rope = isMixed && !slides[index] ? null : ropeOf({ ...args, rope_traditional: false });
      const mask = maskOf(slides[index] ? "sliding_attention" : "full_attention", args);
      return new PostNormBlock(
        new Attention(args, { rope }),
        new GatedMLP(args.hidden_size, args.intermediate_size),
        args,
        mask,
      );
    });
  }
}

/** Norms of heads as well. llama.cpp knows by the number of layers which models have windows. */
export const gguf = decoder("exaone4", {
  names: new TensorNames(normedLayer),
  windows: {
    period: 4,
    typeOf: (settings, index) =>
      slidesAt(settings as unknown as Args, index) ? "sliding_attention" : "full_attention",
  },
  only: { attention_bias: false },
  write(settings) {
    const args = settings as unknown as Args;
    const slides = Array.from({ length: args.num_hidden_layers }, (_, index) => slidesAt(args, index));
    if (slides.includes(true) && args.num_hidden_layers !== 64) noPlace("a window in a model of other than 64 layers");
    return {};
  },
});

export { awq } from "./olmo2";
