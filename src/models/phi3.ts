/** Phi-3: Llama with one projection for q, k, v and one for gate and up; LongRoPE on part of each head. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import {
  attention,
  Decoder,
  Embedding,
  initializeRope,
  joinHeads,
  type KeyValueCache,
  Linear,
  type Mask,
  Module,
  RMSNorm,
  type RopeOptions,
  type RotaryEmbedding,
  splitQueriesKeysValues,
  swiglu,
} from "../nn";
import { checkHeads, headsOf, ropeFields, ropeOptions, size } from "./args";
import { CausalLM } from "./language-model";
import { Block } from "./llama";

export const Args = z
  .object({
    hidden_size: size,
    num_hidden_layers: size,
    intermediate_size: size,
    num_attention_heads: size,
    num_key_value_heads: size.nullish(),
    vocab_size: size,
    rms_norm_eps: z.number().positive(),
    ...ropeFields,
    rope_traditional: z.boolean().default(false),
    partial_rotary_factor: z.number().positive().nullish(),
    max_position_embeddings: size.default(131_072),
    original_max_position_embeddings: size.nullish(),
    tie_word_embeddings: z.boolean().default(false),
  })
  .superRefine(checkHeads);

type Args = z.infer<typeof Args>;

/** LongRoPE or a linear stretch, on part of a head; other types are not used by this family. */
function phiRope(args: Args): RopeOptions {
  const { base, scaling } = ropeOptions(args, { base: 10_000 });
  const part = args.partial_rotary_factor ?? scaling?.partial_rotary_factor ?? 1;
  const type = scaling?.type ?? scaling?.rope_type ?? "default";
  const known = ["default", "linear", "longrope", "su"].includes(type);
  if (!known) console.warn(`rope_scaling of type "${type}" is ignored: Phi-3 has linear, su and longrope`);
  const original = args.original_max_position_embeddings ?? scaling?.original_max_position_embeddings ?? 4096;
  return {
    dims: Math.trunc(headsOf(args).headDim * part),
    base,
    traditional: args.rope_traditional,
    scaling: known
      ? { ...scaling, type: type === "su" ? "longrope" : type, original_max_position_embeddings: original }
      : null,
    maxPositions: args.max_position_embeddings,
  };
}

class Attention extends Module {
  qkv_proj: Linear;
  o_proj: Linear;
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

class MLP extends Module {
  gate_up_proj: Linear;
  down_proj: Linear;

  constructor(dims: number, hiddenDims: number) {
    super();
    this.gate_up_proj = new Linear(dims, 2 * hiddenDims, { bias: false });
    this.down_proj = new Linear(hiddenDims, dims, { bias: false });
  }

  forward(x: Tensor): Tensor {
    const [gate, up] = this.gate_up_proj.forward(x).split(2, -1) as [Tensor, Tensor];
    return this.down_proj.forward(swiglu(gate, up));
  }
}

export class Model extends CausalLM {
  constructor(args: Args) {
    const { hidden_size: D, vocab_size: V } = args;
    const rope = phiRope(args);
    const block = () => new Block(new Attention(args, rope), new MLP(D, args.intermediate_size), args);
    super(
      new Decoder(
        new Embedding(V, D),
        Array.from({ length: args.num_hidden_layers }, block),
        new RMSNorm(D, args.rms_norm_eps),
      ),
      args.tie_word_embeddings ? undefined : new Linear(D, V, { bias: false }),
    );
  }
}
