/**
 * Muse Glimmer, the language model of checkpoints that also see images: Gemma's blocks with SwiGLU; queries and keys normed
 * without a gain; a sigmoid gate on attention's results; normed embeddings; capped logits. Three layers that slide and rotate
 * to each layer that sees all and has no positions.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  attention,
  Decoder,
  divideHeads,
  type ForwardOptions,
  type Joins,
  joinHeads,
  type KeyValueCache,
  type Layer,
  Linear,
  type Mask,
  project,
  type Split,
  splitHeads,
} from "../nn";
import { AttentionType, checkHeads, checkLayerTypes, maskOf, ropeFields, ropeOf, size } from "./args";
import { type AwqFacts, downGroup, gatedGroup } from "./awq-facts";
import { SandwichBlock } from "./gemma2";
import { shifted } from "./gguf/changes";
import { decoder, precise } from "./gguf/decoder";
import type { GgufDescription } from "./gguf/facts";
import { sandwichLayer, TensorNames } from "./gguf/names";
import { noPlace } from "./gguf/rope";
import { CausalLM } from "./language-model";
import * as llama from "./llama";
import { nestedArgs } from "./nested";

const positive = z.number().positive();

const TextArgs = z
  .object({
    hidden_size: size.default(6656),
    num_hidden_layers: size.default(52),
    intermediate_size: size.default(19_968),
    num_attention_heads: size.default(32),
    num_key_value_heads: size.default(2),
    head_dim: size.default(128),
    vocab_size: size.default(202_048),
    max_position_embeddings: size.default(131_072),
    rms_norm_eps: positive.default(1e-5),
    /** Of the norms behind attention and MLP. */
    post_norm_eps: positive.default(1e-8),
    sliding_window: size.default(2048),
    /** Factor on the normed queries, besides 1/√head_dim. */
    qk_scale_factor: z.number().default(3.87),
    attention_bias: z.boolean().default(false),
    tie_word_embeddings: z.boolean().default(false),
    final_logit_softcapping: positive.default(20),
    /** Factor on the logits, ahead of their cap. */
    output_multiplier: z.number().default(0.19611613513818404),
    ...ropeFields,
    layer_types: z.array(AttentionType).nullish(),
    /** By layer, zero for no positions. The base itself is the same in all. */
    layer_rope_theta: z.array(z.number().nonnegative()).nullish(),
  })
  .superRefine(checkHeads)
  .superRefine(checkLayerTypes)
  .superRefine(({ layer_rope_theta: bases, num_hidden_layers: count }, context) => {
    if (!bases || bases.length === count) return;
    const message = `has ${bases.length} entries, but "num_hidden_layers" is ${count}`;
    context.addIssue({ code: "custom", path: ["layer_rope_theta"], message });
  });

type TextArgs = z.infer<typeof TextArgs>;

export const Args = nestedArgs(TextArgs);

/** The pattern is counted from the last layer, which sees all. */
const typeOf = ({ layer_types: types, num_hidden_layers: count }: TextArgs, index: number): AttentionType =>
  types?.[index] ?? ((count - 1 - index) % 4 === 0 ? "full_attention" : "sliding_attention");

function rotates(args: TextArgs, index: number): boolean {
  const base = args.layer_rope_theta?.[index];
  return base === undefined ? typeOf(args, index) === "sliding_attention" : base > 0;
}

type Projected = [queries: Tensor, keys: Tensor, values: Tensor, gates: Tensor];

class Attention extends llama.Attention {
  gate_proj: Layer;
  override readonly scale: number;
  readonly eps: number;

  constructor(args: TextArgs, index: number) {
    const rope = rotates(args, index) ? ropeOf(args, { base: 500_000, layerType: typeOf(args, index) }) : null;
    super({ ...args, rope_traditional: false }, { rope });
    this.gate_proj = new Linear(args.hidden_size, this.heads * this.headDim, { bias: false });
    this.scale = args.qk_scale_factor * this.headDim ** -0.5;
    this.eps = args.rms_norm_eps;
  }

  protected override attend(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const offset = cache?.offset ?? 0;
    const projections = [this.q_proj, this.k_proj, this.v_proj, this.gate_proj];
    const [queries, keys, values, gates] = project(x, projections) as Projected;
    const [q, k] = [this.#placed(queries, this.heads, offset), this.#placed(keys, this.kvHeads, offset)];
    const out = attention(q, k, splitHeads(values, this.kvHeads), { scale: this.scale, mask, cache });
    return joinHeads(out).multiply(gates.sigmoid());
  }

  /** x (B, T, heads · headDim) → (B, heads, T, headDim), normed and rotated */
  #placed(x: Tensor, heads: number, offset: number | Tensor): Tensor {
    const normed = mx.fast.rmsNorm(splitHeads(x, heads), null, this.eps);
    return this.rope?.forward(normed, offset) ?? normed;
  }

  override shard(split: Split): void {
    divideHeads(this, split, { layers: ["gate_proj"] });
  }
}

class NormedDecoder extends Decoder<KeyValueCache> {
  constructor(
    parts: ConstructorParameters<typeof Decoder<KeyValueCache>>,
    readonly eps: number,
  ) {
    super(...parts);
  }

  override forward(inputs: Tensor, options: ForwardOptions<KeyValueCache> = {}): Tensor {
    const embedded = options.inputEmbeddings ?? this.embedding.forward(inputs);
    return super.forward(inputs, { ...options, inputEmbeddings: mx.fast.rmsNorm(embedded, null, this.eps) });
  }
}

/** The parts for images, and the prefixes of the language model, in checkpoints of transformers and of MLX. */
const otherParts = /^(model\.)?vision_(tower|adapter|projection)\./;
const prefixes = /^(model\.language_model|language_model\.model)\.|^language_model\.(?=lm_head\.)/;

export class Model extends CausalLM {
  constructor(args: TextArgs) {
    const { rms_norm_eps: eps, final_logit_softcapping: cap, output_multiplier: factor } = args;
    const block = (index: number) => {
      const mask = maskOf(typeOf(args, index), args);
      return new SandwichBlock(new Attention(args, index), args, mask, { downLast: true });
    };
    super(args, block, {
      decoder: (...parts) => new NormedDecoder(parts, eps),
      adjustLogits: (logits) => logits.multiply(factor).divide(cap).tanh().multiply(cap),
    });
  }

  /** Leaves out the parts for images, and takes the language model's prefix away. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const own = [...weights].filter(([name]) => !otherParts.test(name));
    const bare = own.map(([name, weight]) => [name.replace(prefixes, (_, trunk) => (trunk ? "model." : "")), weight]);
    return super.sanitize(new Map(bare as [string, Tensor][]));
  }
}

export const joins: Joins = [
  ["q_proj", "k_proj", "v_proj", "gate_proj"],
  ["gate_proj", "up_proj"],
];

export const awq: AwqFacts = {
  noClip: ["q_proj", "k_proj"],
  groups: [
    {
      before: "input_layernorm",
      layers: ["q_proj", "k_proj", "v_proj", "gate_proj"].map((name) => `self_attn.${name}`),
      part: "self_attn",
    },
    downGroup("mlp"),
    gatedGroup("pre_feedforward_layernorm"),
  ],
};

/** Norms that count from one; the last one does not. */
const norms = ["input", "post_attention", "pre_feedforward", "post_feedforward"].map((name) => `${name}_layernorm`);

export const gguf = decoder("muse-glimmer", {
  names: new TensorNames({ ...sandwichLayer, attn_gate: "self_attn.gate_proj" }),
  pairsRows: true,
  ropeBase: 500_000,
  changes: () => Object.fromEntries(norms.map((norm) => [norm, shifted(1)])),
  windows: { period: 4, typeOf: (settings, index) => typeOf(settings as unknown as TextArgs, index) },
  floats: { logit_scale: "output_multiplier", final_logit_softcapping: "final_logit_softcapping" },
  only: { attention_bias: false, tie_word_embeddings: false, post_norm_eps: 1e-8 },
  // llama.cpp norms queries and keys with gains.
  constants(config) {
    const { num_hidden_layers: layers, head_dim: width, qk_scale_factor: factor } = config as TextArgs;
    const each = Array.from({ length: layers }, (_, index): [string, readonly [number, number]][] => [
      [`blk.${index}.attn_q_norm.weight`, [factor, width]],
      [`blk.${index}.attn_k_norm.weight`, [1, width]],
    ]);
    return Object.fromEntries(each.flat());
  },
  read: (file) => ({ qk_scale_factor: readFactor(file) }),
  write(_, config) {
    const args = config as TextArgs;
    for (let index = 0; index < args.num_hidden_layers; index++) {
      const slides = typeOf(args, index) === "sliding_attention";
      if (rotates(args, index) !== slides) noPlace('"layer_rope_theta" that is not that of sliding layers alone');
    }
    return {};
  },
});

/** @throws UserError where queries and keys are scaled otherwise than by one factor */
function readFactor(file: GgufDescription): number {
  const [factors, ones] = ["q", "k"].map((of) => file.factors(`blk.0.attn_${of}_norm.weight`) ?? []);
  if (factors!.some((factor) => factor !== factors![0])) file.wrong("its queries are not scaled by one factor");
  if (ones!.some((one) => one !== 1)) file.wrong("its keys are scaled");
  return precise(factors![0] ?? 1);
}
