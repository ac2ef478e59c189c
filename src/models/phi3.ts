/** Phi-3: Llama with one projection for q, k, v and one for gate and up; LongRoPE on part of each head. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import {
  attention,
  initializeRope,
  JointGatedMLP,
  joinHeads,
  type KeyValueCache,
  type Layer,
  Linear,
  type Mask,
  Module,
  type RopeOptions,
  type RotaryEmbedding,
  splitQueriesKeysValues,
} from "../nn";
import { checkHeads, denseFields, headsOf, type RopeFields, ropeOptions, size } from "./args";
import { blockAwq } from "./awq-facts";
import { decoder } from "./gguf/decoder";
import { TensorNames } from "./gguf/names";
import { CausalLM } from "./language-model";
import { Block } from "./llama";

/** How positions may be stretched; the last two are the same. */
const rotationTypes = ["default", "linear", "longrope", "su"];

function rotationType(fields: RopeFields): string {
  const { scaling } = ropeOptions(fields, { base: 10_000 });
  return scaling?.type ?? scaling?.rope_type ?? "default";
}

export const Args = z
  .object({
    ...denseFields,
    partial_rotary_factor: z.number().positive().max(1).nullish(),
    max_position_embeddings: size.default(131_072),
    original_max_position_embeddings: size.nullish(),
    tie_word_embeddings: z.boolean().default(false),
  })
  .superRefine(checkHeads)
  .superRefine((args, context) => {
    const type = rotationType(args);
    if (rotationTypes.includes(type)) return;
    const field = args.rope_scaling ? "rope_scaling" : "rope_parameters";
    const message = `has type "${type}", but Phi-3 knows ${rotationTypes.join(", ")}`;
    context.addIssue({ code: "custom", path: [field], message });
  });

type Args = z.infer<typeof Args>;

/** On part of a head. */
function phiRope(args: Args): RopeOptions {
  const { base, scaling } = ropeOptions(args, { base: 10_000 });
  const part = args.partial_rotary_factor ?? scaling?.partial_rotary_factor ?? 1;
  const type = rotationType(args);
  const original = args.original_max_position_embeddings ?? scaling?.original_max_position_embeddings ?? 4096;
  return {
    dims: Math.trunc(headsOf(args).headDim * part),
    base,
    traditional: args.rope_traditional,
    scaling: { ...scaling, type: type === "su" ? "longrope" : type, original_max_position_embeddings: original },
    maxPositions: args.max_position_embeddings,
  };
}

class Attention extends Module {
  qkv_proj: Layer;
  o_proj: Layer;
  rope: RotaryEmbedding;
  readonly heads: number;
  readonly kvHeads: number;
  readonly scale: number;

  constructor(args: Args, rope: RopeOptions) {
    super();
    const { heads, kvHeads, headDim } = headsOf(args);
    this.qkv_proj = new Linear(args.hidden_size, (heads + 2 * kvHeads) * headDim, { bias: false });
    this.o_proj = new Linear(heads * headDim, args.hidden_size, { bias: false });
    this.rope = initializeRope(rope);
    this.heads = heads;
    this.kvHeads = kvHeads;
    this.scale = headDim ** -0.5;
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const [q, k, v] = splitQueriesKeysValues(this.qkv_proj.forward(x), this, cache?.offset);
    const out = attention(q, k, v, { scale: this.scale, mask, cache });
    return this.o_proj.forward(joinHeads(out));
  }
}

export class Model extends CausalLM {
  constructor(args: Args) {
    const rope = phiRope(args);
    super(
      args,
      () => new Block(new Attention(args, rope), new JointGatedMLP(args.hidden_size, args.intermediate_size), args),
    );
  }
}

export const gguf = decoder("phi3", {
  names: new TensorNames({
    attn_norm: "input_layernorm",
    attn_qkv: "self_attn.qkv_proj",
    attn_output: "self_attn.o_proj",
    ffn_norm: "post_attention_layernorm",
    ffn_up: "mlp.gate_up_proj",
    ffn_down: "mlp.down_proj",
  }),
  only: { rope_traditional: false },
  turning: (settings) => phiRope(settings as unknown as Args).dims,
});

export const awq = blockAwq();
