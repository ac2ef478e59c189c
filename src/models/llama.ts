/** Llama: pre-norm decoder, rotary grouped-query attention, SwiGLU. Also Mistral, Xverse and IQuest-Coder. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import {
  type AttentionLayers,
  attendRows,
  attendToken,
  attention,
  type DecoderLayer,
  type Divisible,
  divideHeads,
  type GatedLayers,
  GatedMLP,
  initializeRope,
  joinHeads,
  type KeyValueCache,
  type Layer,
  Linear,
  layerRows,
  layerToken,
  type Mask,
  type MaskRule,
  Module,
  type Norm,
  projectHeads,
  type Residual,
  RMSNorm,
  type RopeOptions,
  type RotaryEmbedding,
  type Split,
} from "../nn";
import {
  AttentionType,
  type attentionFields,
  checkHeads,
  checkLayerTypes,
  denseFields,
  headsOf,
  layerType,
  maskOf,
  ropeOf,
  size,
} from "./args";
import { denseAwq } from "./awq-facts";
import { decoder } from "./gguf/decoder";
import { CausalLM } from "./language-model";

export const Args = z
  .object({
    ...denseFields,
    mlp_bias: z.boolean().default(false),
    layer_types: z.array(AttentionType).nullish(),
    sliding_window: size.nullish(),
  })
  .superRefine(checkHeads)
  .superRefine(checkLayerTypes);

export type AttentionArgs = z.infer<z.ZodObject<typeof attentionFields>> & { hidden_size: number };

export interface AttentionOptions {
  /** How heads are rotated, where it is not as the configuration's usual fields say; null for no positions (NoPE). */
  rope?: RopeOptions | null;
  /** Whether the last projection has a bias; `attention_bias` where absent. */
  outputBias?: boolean;
  /** Makes a projection, where it is another layer than `Linear`. */
  linear?: (inputDims: number, outputDims: number, bias: boolean) => Layer;
}

const plainLinear = (inputDims: number, outputDims: number, bias: boolean) =>
  new Linear(inputDims, outputDims, { bias });

export class Attention extends Module implements Divisible {
  q_proj: Layer;
  k_proj: Layer;
  v_proj: Layer;
  o_proj: Layer;
  readonly rope: RotaryEmbedding | null;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly scale: number;

  constructor(args: AttentionArgs, options: AttentionOptions = {}) {
    super();
    const { hidden_size: D, attention_bias: bias } = args;
    const { rope = ropeOf(args), outputBias = bias, linear = plainLinear } = options;
    const { heads, kvHeads, headDim } = headsOf(args);
    this.q_proj = linear(D, heads * headDim, bias);
    this.k_proj = linear(D, kvHeads * headDim, bias);
    this.v_proj = linear(D, kvHeads * headDim, bias);
    this.o_proj = linear(heads * headDim, D, outputBias);
    this.rope = rope && initializeRope(rope);
    this.heads = heads;
    this.kvHeads = kvHeads;
    this.headDim = headDim;
    this.scale = headDim ** -0.5;
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const { plain } = this;
    return (plain && attendToken(x, plain, mask, cache)) ?? this.o_proj.forward(this.attend(x, mask, cache));
  }

  /** This, where nobody has changed what it computes. */
  get plain(): AttentionLayers | null {
    const { attend, forward } = Attention.prototype;
    return this.attend === attend && this.forward === forward ? this : null;
  }

  shard(split: Split): void {
    divideHeads(this, split);
  }

  /** The heads' results side by side, ahead of the last projection: (B, T, H · headDim) */
  protected attend(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const rows = attendRows(x, this, mask, cache);
    if (rows) return rows;
    const [q, k, v] = projectHeads(x, [this.q_proj, this.k_proj, this.v_proj], this, cache?.offset);
    return joinHeads(attention(q, k, v, { scale: this.scale, mask, cache }));
  }
}

export interface SelfAttention extends Module {
  /** What it consists of, where it is attention as Llama has it. */
  readonly plain?: AttentionLayers | null;
  forward(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor;
}

/** x + attention(norm(x)), then h + mlp(norm(h)). */
export class Block extends Module implements DecoderLayer {
  input_layernorm: Module & Norm;
  post_attention_layernorm: Module & Norm;

  constructor(
    readonly self_attn: SelfAttention,
    readonly mlp: Layer,
    { hidden_size, rms_norm_eps }: { hidden_size: number; rms_norm_eps: number },
    readonly mask?: MaskRule,
    norm: (dims: number, eps: number) => Module & Norm = (dims, eps) => new RMSNorm(dims, eps),
  ) {
    super();
    this.input_layernorm = norm(hidden_size, rms_norm_eps);
    this.post_attention_layernorm = norm(hidden_size, rms_norm_eps);
  }

  get plainAttention(): AttentionLayers | null {
    return this.self_attn.plain ?? null;
  }

  get plainFeedForward(): GatedLayers | null {
    return this.mlp instanceof GatedMLP ? this.mlp.plain : null;
  }

  forward(x: Residual, mask: Mask, cache?: KeyValueCache): Residual {
    const whole = layerToken(x, this, mask, cache) ?? layerRows(x, this, mask, cache);
    if (whole) return whole;
    const h = x.plus(this.self_attn.forward(x.branch(this.input_layernorm), mask, cache));
    return h.plus(this.mlp.forward(h.branch(this.post_attention_layernorm)));
  }
}

export class Model extends CausalLM {
  constructor(args: z.infer<typeof Args>) {
    super(args, (index) => {
      const type = layerType(args, index);
      const mlp = () => new GatedMLP(args.hidden_size, args.intermediate_size, { bias: args.mlp_bias });
      return new Block(
        new Attention(args, { rope: ropeOf(args, { layerType: type }) }),
        mlp(),
        args,
        maskOf(type, args),
      );
    });
  }
}

export const awq = denseAwq();

export const gguf = decoder("llama", { pairsRows: true });
