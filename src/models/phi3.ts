/** Phi-3: Llama with one projection for q, k, v and one for gate and up; LongRoPE on part of each head. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import {
  attention,
  Decoder,
  Embedding,
  joinHeads,
  type KeyValueCache,
  Linear,
  longRoPE,
  type Mask,
  Module,
  RMSNorm,
  RoPE,
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
    partial_rotary_factor: z.number().positive().default(1),
    max_position_embeddings: size.default(131_072),
    original_max_position_embeddings: size.default(4096),
    tie_word_embeddings: z.boolean().default(false),
  })
  .superRefine(checkHeads);

type Args = z.infer<typeof Args>;

/** LongRoPE, a linear stretch, or plain positions for every other type. */
function rope(args: Args): RotaryEmbedding {
  const { base, scaling } = ropeOptions(args, { base: 10_000 });
  const dims = Math.trunc(headsOf(args).headDim * args.partial_rotary_factor);
  const type = scaling?.type ?? scaling?.rope_type;
  if ((type === "longrope" || type === "su") && scaling?.long_factor) {
    return longRoPE(dims, {
      base,
      maxPositions: args.max_position_embeddings,
      originalMaxPositions: args.original_max_position_embeddings,
      longFactor: scaling.long_factor,
    });
  }
  const scale = type === "linear" && scaling?.factor ? 1 / scaling.factor : 1;
  return new RoPE(dims, { traditional: args.rope_traditional, base, scale });
}

class Attention extends Module {
  qkv_proj: Linear;
  o_proj: Linear;
  rope: RotaryEmbedding;
  readonly heads: number;
  readonly kvHeads: number;
  readonly scale: number;

  constructor(args: Args) {
    super();
    const { heads, kvHeads, headDim } = headsOf(args);
    this.qkv_proj = new Linear(args.hidden_size, (heads + 2 * kvHeads) * headDim, { bias: false });
    this.o_proj = new Linear(heads * headDim, args.hidden_size, { bias: false });
    this.rope = rope(args);
    this.heads = heads;
    this.kvHeads = kvHeads;
    this.scale = headDim ** -0.5;
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const rotate = (heads: Tensor) => this.rope.forward(heads, cache?.offset);
    let [q, k, v] = splitQueriesKeysValues(this.qkv_proj.forward(x), this, rotate);
    [k, v] = cache?.update(k, v) ?? [k, v];
    const out = attention(q, k, v, { scale: this.scale, mask });
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
    const block = () => new Block(new Attention(args), new MLP(D, args.intermediate_size), args);
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
