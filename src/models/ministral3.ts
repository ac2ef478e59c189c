/** Ministral 3: Llama whose queries grow with their position, and whose layers may slide. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import {
  attention,
  GatedMLP,
  joinHeads,
  type KeyValueCache,
  type Mask,
  type PositionScale,
  projectHeads,
  RopeScaling,
  scaleByPosition,
} from "../nn";
import { AttentionType, checkHeads, checkLayerTypes, denseFields, maskOf, ropeOf, size } from "./args";
import { denseAwq } from "./awq-facts";
import { decoder, precise } from "./gguf/decoder";
import { f32, u32 } from "./gguf/facts";
import { noPlace } from "./gguf/rope";
import { CausalLM } from "./language-model";
import * as llama from "./llama";

/** Rotary settings with those of the queries' growth beside them. */
export const GrowingRope = RopeScaling.extend({
  llama_4_scaling_beta: z.number(),
  original_max_position_embeddings: z.number().positive(),
  max_position_embeddings: z.number().positive().nullish(),
});

/** How queries grow, by the usual fields. */
export const growthOf = (rope: z.infer<typeof GrowingRope>): PositionScale => ({
  beta: rope.llama_4_scaling_beta,
  period: rope.original_max_position_embeddings,
});

export const Args = z
  .object({
    ...denseFields,
    rope_parameters: GrowingRope,
    layer_types: z.array(AttentionType).nullish(),
    sliding_window: size.nullish(),
  })
  .superRefine(checkHeads)
  .superRefine(checkLayerTypes);

type Args = z.infer<typeof Args>;

class Attention extends llama.Attention {
  readonly growth: PositionScale;

  constructor(args: Args) {
    super({ ...args, attention_bias: false }, { rope: ropeOf({ ...args, rope_traditional: false }) });
    this.growth = growthOf(args.rope_parameters);
  }

  protected override attend(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const offset = cache?.offset ?? 0;
    const [q, k, v] = projectHeads(x, [this.q_proj, this.k_proj, this.v_proj], this, offset);
    const grown = scaleByPosition(q, offset, this.growth);
    return joinHeads(attention(grown, k, v, { scale: this.scale, mask, cache }));
  }
}

export class Model extends CausalLM {
  constructor(args: Args) {
    // A window without types of layers is one for all.
    const usual = args.sliding_window ? "sliding_attention" : "full_attention";
    super(args, (index) => {
      const mask = maskOf(args.layer_types?.[index] ?? usual, args);
      return new llama.Block(new Attention(args), new GatedMLP(args.hidden_size, args.intermediate_size), args, mask);
    });
  }
}

export const awq = denseAwq();

export const gguf = decoder("mistral3", {
  pairsRows: true,
  only: { attention_bias: false, mlp_bias: false },
  read(file, { rope_theta, rope_scaling, max_position_embeddings: longest }) {
    const weight = file.number("rope.scaling.yarn_log_multiplier");
    const scaling = (rope_scaling ?? { type: "default" }) as Record<string, unknown>;
    return {
      rope_theta: undefined,
      rope_scaling: undefined,
      rope_parameters: {
        ...scaling,
        original_max_position_embeddings: scaling.original_max_position_embeddings ?? longest,
        rope_theta,
        ...(weight ? { mscale: 1, mscale_all_dim: precise(weight) } : {}),
        llama_4_scaling_beta: precise(file.number("attention.temperature_scale") ?? 0),
      },
    };
  },
  write(settings) {
    const { rope_parameters: rope } = settings as unknown as Args;
    const { mscale, mscale_all_dim: weight, llama_4_scaling_beta: beta } = rope;
    if (weight && (mscale ?? 1) !== 1) noPlace(`"mscale" ${mscale} (not 1)`);
    return {
      "attention.temperature_scale": beta ? f32(beta) : undefined,
      "rope.scaling.original_context_length": u32(rope.original_max_position_embeddings),
      "rope.scaling.yarn_log_multiplier": weight ? f32(weight) : undefined,
      // Of the two factors.
      ...(weight ? { "rope.scaling.attn_factor": undefined } : {}),
    };
  },
});
