/** SmolLM 3: Llama with no rotary embedding on every fourth layer (NoPE). */
import { isDeepStrictEqual } from "node:util";
import { z } from "zod";
import { GatedMLP } from "../nn";
import { checkHeads, denseFields, ropeOf, size } from "./args";
import { denseAwq } from "./awq-facts";
import { decoder } from "./gguf/decoder";
import { noPlace } from "./gguf/rope";
import { CausalLM } from "./language-model";
import * as llama from "./llama";

export const Args = z
  .object({
    ...denseFields,
    mlp_bias: z.boolean().default(false),
    no_rope_layer_interval: size.default(4),
    /** 1 where a layer has positions, 0 where it has none. */
    no_rope_layers: z.array(z.union([z.literal(0), z.literal(1)])).nullish(),
  })
  .superRefine(checkHeads)
  .superRefine(({ no_rope_layers: layers, num_hidden_layers: count }, context) => {
    if (!layers || layers.length === count) return;
    const message = `has ${layers.length} entries, but "num_hidden_layers" is ${count}`;
    context.addIssue({ code: "custom", path: ["no_rope_layers"], message });
  });

export class Model extends CausalLM {
  constructor(args: z.infer<typeof Args>) {
    const rotates = (index: number) => args.no_rope_layers?.[index] ?? (index + 1) % args.no_rope_layer_interval;
    super(args, (index) => {
      const attention = new llama.Attention(args, { rope: rotates(index) ? ropeOf(args) : null });
      const mlp = new GatedMLP(args.hidden_size, args.intermediate_size, { bias: args.mlp_bias });
      return new llama.Block(attention, mlp, args);
    });
  }
}

export const awq = denseAwq();

export const gguf = decoder("smollm3", {
  pairsRows: true,
  only: { attention_bias: false, mlp_bias: false, no_rope_layer_interval: 4 },
  write({ num_hidden_layers, no_rope_layers: layers }) {
    const usual = Array.from({ length: num_hidden_layers }, (_, index) => ((index + 1) % 4 === 0 ? 0 : 1));
    if (layers && !isDeepStrictEqual(layers, usual)) noPlace('"no_rope_layers" other than every fourth');
    return {};
  },
});
