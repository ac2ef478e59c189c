/**
 * Muse Spark, which also sees; what its checkpoints hear with is left out. The language model: Muse Glimmer's attention, its results normed for each
 * head ahead of the gate; experts alone, in a narrower space; and a stream in float32 to which fixed gates add each part.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  attention,
  type CacheOptions,
  Decoder,
  type DecoderLayer,
  Embedding,
  type ForwardOptions,
  highest,
  initializeRope,
  joinHeads,
  type KeyValueCache,
  type Layer,
  Linear,
  layerCaches,
  type Mask,
  type MaskRule,
  Module,
  parameter,
  preciseSwiglu,
  Residual,
  RMSNorm,
  type RotaryEmbedding,
  type Routing,
  SwitchGLU,
  splitHeads,
} from "../nn";
import {
  AttentionType,
  checkExperts,
  checkHeads,
  checkLayerTypes,
  maskOf,
  ropeFields,
  ropeOptions,
  size,
} from "./args";
import { replaceRows, type SeeingModel } from "./images";
import type { LanguageModel } from "./language-model";
import { checkScales, fromPublished, gateFactors, joinProjections, joinSeen } from "./muse-spark/checkpoint";
import { imageForm } from "./muse-spark/image-form";
import { VisionAdapter, VisionArgs, VisionTower } from "./muse-spark/vision-tower";
import { nestedArgs } from "./nested";

const positive = z.number().positive();

const TextArgs = z
  .object({
    hidden_size: size,
    num_attention_heads: size,
    num_key_value_heads: size,
    head_dim: size,
    num_hidden_layers: size,
    vocab_size: size,
    rms_norm_eps: positive,
    /** Of the norms behind attention and MLP. */
    post_norm_eps: positive,
    ...ropeFields,
    /** By layer, zero for no positions. The base itself is the same in all. */
    layer_rope_theta: z.array(z.number().nonnegative()),
    layer_types: z.array(AttentionType),
    sliding_window: size,
    final_logit_softcapping: positive,
    /** Factor on the logits, ahead of their cap, and on the router's. */
    output_multiplier: z.number(),
    num_local_experts: size,
    num_experts_per_tok: size,
    /** Width of the space that the experts work in. */
    moe_hidden_size: size,
    moe_intermediate_size: size,
    /** Factor on the normed queries, besides 1/√head_dim. */
    qk_scale_factor: z.number().default(5.4730064863875),
    routed_scaling_factor: z.number().default(1),
    num_shared_experts: z.literal(0).nullish(),
    mlp_layer_types: z.array(z.literal("sparse")).nullish(),
    attention_bias: z.literal(false).default(false),
    tie_word_embeddings: z.literal(false).default(false),
  })
  .superRefine(checkHeads)
  .superRefine(checkLayerTypes)
  .superRefine(checkExperts("num_experts_per_tok", "num_local_experts"))
  .superRefine(({ layer_rope_theta: bases, num_hidden_layers: count }, context) => {
    if (bases.length === count) return;
    const message = `has ${bases.length} entries, but "num_hidden_layers" is ${count}`;
    context.addIssue({ code: "custom", path: ["layer_rope_theta"], message });
  });

type Args = z.infer<typeof TextArgs>;

/** Of images: there where the configuration has a `vision_config`. */
const ImageArgs = z.object({
  vision_config: VisionArgs.nullish(),
  /** Of the token in whose places the rows of images stand. */
  image_token_id: z.int().nonnegative().default(200_092),
  /** What the tower gives of a token: patches side by side. */
  out_hidden_size: size.nullish(),
  projector_hidden_size: size.nullish(),
});

export const Args = nestedArgs(TextArgs).and(ImageArgs);

type AllArgs = z.infer<typeof Args>;

class Attention extends Module {
  /** Queries, keys, values and gates in one. */
  qkvg_proj: Layer;
  o_proj: Layer;
  readonly rope: RotaryEmbedding | null;
  readonly scale: number;
  readonly #ends: number[];

  constructor(
    readonly args: Args,
    index: number,
  ) {
    super();
    const { hidden_size: D, num_attention_heads: heads, num_key_value_heads: kvHeads, head_dim: dims } = args;
    this.qkvg_proj = new Linear(D, 2 * (heads + kvHeads) * dims, { bias: false });
    this.o_proj = new Linear(heads * dims, D, { bias: false });
    const { base, scaling } = ropeOptions(args, { base: 500_000 });
    this.rope = args.layer_rope_theta[index] ? initializeRope({ dims, base, traditional: true, scaling }) : null;
    this.scale = args.qk_scale_factor * dims ** -0.5;
    this.#ends = [heads, heads + kvHeads, heads + 2 * kvHeads].map((count) => count * dims);
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const { num_attention_heads: heads, num_key_value_heads: kvHeads, rms_norm_eps: eps } = this.args;
    const parts = this.qkvg_proj.forward(x).split(this.#ends, -1);
    const [queries, keys, values, gates] = parts as [Tensor, Tensor, Tensor, Tensor];
    const offset = cache?.offset ?? 0;
    const placed = (part: Tensor, count: number) => {
      const normed = mx.fast.rmsNorm(splitHeads(part, count), null, eps);
      return this.rope?.forward(normed, offset) ?? normed;
    };
    const [q, k] = [placed(queries, heads), placed(keys, kvHeads)];
    const out = attention(q, k, splitHeads(values, kvHeads), { scale: this.scale, mask, cache });
    const normed = joinHeads(mx.fast.rmsNorm(out.astype("float32"), null, eps));
    return this.o_proj.forward(normed.multiply(gates.astype("float32").sigmoid()).astype(x.dtype));
  }
}

/** RMSNorm whose weight scales what is normed, not the result. */
class InputScaledRMSNorm extends RMSNorm {
  override forward(x: Tensor): Tensor {
    return mx.fast.rmsNorm(x.multiply(this.weight), null, this.eps);
  }
}

/** Far below any sum of scores. */
const least = 1e-15;

class Router extends Module {
  /** (experts, D) */
  weight: Tensor;
  /** Only takes part in the choice, (experts). */
  e_score_correction_bias: Tensor;

  constructor(readonly args: Args) {
    super();
    this.weight = parameter(mx.zeros([args.num_local_experts, args.hidden_size]));
    this.e_score_correction_bias = parameter(mx.zeros([args.num_local_experts]));
  }

  /** x (…, D) → (…, k) each, weights in float32 */
  forward(x: Tensor): Routing {
    const { num_experts_per_tok: k, output_multiplier: factor, routed_scaling_factor: scale } = this.args;
    const logits = x.astype("float32").matmul(this.weight.astype("float32").T);
    const scores = logits.multiply(factor).sigmoid();
    const experts = highest(scores.add(this.e_score_correction_bias), k);
    const chosen = scores.takeAlongAxis(experts, -1);
    const weights = chosen.divide(chosen.sum({ axis: -1, keepdims: true }).add(least));
    return { experts, weights: weights.multiply(scale) };
  }
}

/** Experts, and the norm of the results of each, which checkpoints have under them. */
class Experts extends SwitchGLU {
  post_expert_norm: InputScaledRMSNorm;

  constructor(args: Args) {
    const activation = (gate: Tensor, x: Tensor) => preciseSwiglu(gate, x).astype(x.dtype);
    super(args.moe_hidden_size, args.moe_intermediate_size, args.num_local_experts, { activation });
    this.post_expert_norm = new InputScaledRMSNorm(args.moe_hidden_size, args.post_norm_eps);
  }
}

class MoE extends Module {
  gate: Router;
  pre_expert_proj: Layer;
  pre_expert_norm: RMSNorm;
  experts: Experts;
  post_expert_proj: Layer;

  constructor(args: Args) {
    super();
    const { hidden_size: dims, moe_hidden_size: narrow } = args;
    this.gate = new Router(args);
    this.pre_expert_proj = new Linear(dims, narrow, { bias: false });
    this.pre_expert_norm = new RMSNorm(narrow, args.rms_norm_eps);
    this.experts = new Experts(args);
    this.post_expert_proj = new Linear(narrow, dims, { bias: false });
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor): Tensor {
    const { experts, weights } = this.gate.forward(x);
    const narrowed = this.pre_expert_norm.forward(this.pre_expert_proj.forward(x));
    const results = this.experts.forward(narrowed, experts).astype("float32");
    const normed = this.experts.post_expert_norm.forward(results);
    const mixed = normed.multiply(weights.astype(x.dtype).expandDims(-1)).sum({ axis: -2 });
    return this.post_expert_proj.forward(mixed.astype(x.dtype));
  }
}

class Block extends Module implements DecoderLayer {
  input_layernorm: RMSNorm;
  self_attn: Attention;
  pre_feedforward_layernorm: RMSNorm;
  mlp: MoE;
  post_feedforward_layernorm: InputScaledRMSNorm;
  /** Factors on the stream and on attention's results, then on those of the MLP, (D). */
  add_attn_alpha: Tensor;
  add_attn_beta: Tensor;
  add_ffn_alpha: Tensor;
  add_ffn_beta: Tensor;
  readonly mask?: MaskRule;
  readonly postEps: number;

  constructor(args: Args, index: number) {
    super();
    const { hidden_size: D, rms_norm_eps: eps, post_norm_eps: postEps } = args;
    this.input_layernorm = new RMSNorm(D, eps);
    this.self_attn = new Attention(args, index);
    this.pre_feedforward_layernorm = new RMSNorm(D, eps);
    this.mlp = new MoE(args);
    this.post_feedforward_layernorm = new InputScaledRMSNorm(D, postEps);
    const factors = () => mx.scope(() => gateFactors(mx.zeros([D])));
    const [attn, ffn] = [factors(), factors()];
    this.add_attn_alpha = parameter(attn.alpha);
    this.add_attn_beta = parameter(attn.beta);
    this.add_ffn_alpha = parameter(ffn.alpha);
    this.add_ffn_beta = parameter(ffn.beta);
    this.mask = maskOf(args.layer_types[index]!, args);
    this.postEps = postEps;
  }

  forward(x: Residual, mask: Mask, cache?: KeyValueCache): Residual {
    const attended = this.self_attn.forward(read(this.input_layernorm, x.value), mask, cache);
    const normed = mx.fast.rmsNorm(attended, null, this.postEps);
    const h = x.value.multiply(this.add_attn_alpha).add(normed.astype("float32").multiply(this.add_attn_beta));
    const fed = this.post_feedforward_layernorm.forward(this.mlp.forward(read(this.pre_feedforward_layernorm, h)));
    return new Residual(h.multiply(this.add_ffn_alpha), fed.astype("float32").multiply(this.add_ffn_beta));
  }
}

/** What a part reads of the stream: normed, in the dtype of the weights. */
const read = (norm: RMSNorm, stream: Tensor): Tensor => norm.forward(stream).astype(norm.weight.dtype);

class Trunk extends Decoder<KeyValueCache> {
  constructor(readonly args: Args) {
    const { vocab_size, hidden_size: D, num_hidden_layers: count, rms_norm_eps: eps } = args;
    const blocks = Array.from({ length: count }, (_, index) => new Block(args, index));
    super(new Embedding(vocab_size, D), blocks, new RMSNorm(D, eps));
  }

  override forward(inputs: Tensor, options: ForwardOptions<KeyValueCache> = {}): Tensor {
    // What comes from outside is normed already, as images are.
    const embedded = options.inputEmbeddings ?? this.embed(inputs);
    return super.forward(inputs, { ...options, inputEmbeddings: embedded.astype("float32") }).astype(embedded.dtype);
  }

  /** Token ids (…) → (…, D) */
  embed(inputs: Tensor): Tensor {
    return mx.fast.rmsNorm(this.embedding.forward(inputs), null, this.args.rms_norm_eps);
  }
}

/** The language model has the place beside other parts that checkpoints give it. */
class Parts extends Module {
  readonly language_model: Trunk;
  vision_tower?: VisionTower;
  vision_adapter?: VisionAdapter;
  vision_projection?: Layer;

  constructor(args: AllArgs) {
    super();
    this.language_model = new Trunk(args);
    const { vision_config: vision, hidden_size: D } = args;
    if (!vision) return;
    const seen = args.out_hidden_size ?? vision.hidden_size * vision.merge_size ** 2;
    const projected = args.projector_hidden_size ?? seen;
    this.vision_tower = new VisionTower(vision);
    this.vision_adapter = new VisionAdapter(seen, projected);
    this.vision_projection = new Linear(projected, D, { bias: false });
  }
}

export class Model extends Module implements LanguageModel {
  readonly model: Parts;
  lm_head: Layer;
  readonly #args: AllArgs;

  constructor(args: AllArgs) {
    super();
    this.model = new Parts(args);
    this.lm_head = new Linear(args.hidden_size, args.vocab_size, { bias: false });
    this.#args = args;
  }

  get layers(): DecoderLayer[] {
    return this.model.language_model.layers;
  }

  get vocabSize(): number {
    return this.model.language_model.embedding.weight.dim(0);
  }

  forward(inputs: Tensor, options?: ForwardOptions<KeyValueCache>): Tensor {
    const { output_multiplier: factor, final_logit_softcapping: cap } = this.#args;
    const logits = this.lm_head.forward(this.model.language_model.forward(inputs, options)).astype("float32");
    return logits.multiply(factor).divide(cap).tanh().multiply(cap);
  }

  get images(): SeeingModel | null {
    const { vision_tower: tower, vision_adapter: adapter, vision_projection: projection, language_model } = this.model;
    if (!tower || !adapter || !projection) return null;
    const { vision_config, image_token_id: place, rms_norm_eps: eps } = this.#args;
    return {
      form: imageForm(vision_config!.patch_size * vision_config!.merge_size),
      see(images) {
        const rows = mx.concatenate(images.map((image) => adapter.forward(tower.forward(image))));
        return mx.fast.rmsNorm(projection.forward(rows), null, eps);
      },
      embed: (tokens, rows) => replaceRows(language_model.embed(mx.array(tokens, "uint32")), tokens, place, rows),
    };
  }

  makeCache(options?: CacheOptions): KeyValueCache[] {
    return layerCaches(this.layers, options);
  }

  /**
   * Leaves out the part for sound, and that for images where config.json has none. Joins the projections of attention, takes
   * those of experts apart, and turns gates and the distances of norms' weights from one into factors.
   */
  sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const isOwn = [...weights.keys()].some((name) => name.endsWith("_alpha"));
    const tower = this.model.vision_tower;
    checkScales(weights);
    const sanitized = new Map<string, Tensor>();
    for (const [name, weight] of weights) {
      if (sound.test(name) || (!tower && sight.test(name))) continue;
      for (const [own, tensor] of isOwn
        ? [[name, weight] as const]
        : fromPublished(name, weight, this.#args.num_local_experts)) {
        sanitized.set(own, tensor);
      }
    }
    for (const index of this.layers.keys()) {
      joinProjections(sanitized, `model.language_model.layers.${index}.self_attn`, this.#args.head_dim);
    }
    for (const index of tower?.layers.keys() ?? []) {
      joinSeen(sanitized, `model.vision_tower.layers.${index}.attn`, tower!.headDim);
    }
    return sanitized;
  }
}

const sound = /^model\.audio_tower\./;
const sight = /^model\.vision_(tower|adapter|projection)\./;

/** Only experts are packed, but those of the first and the last layer. */
export function quantize(path: string, config: Record<string, unknown>): "leave" | undefined {
  const [, layer] = /\.layers\.(\d+)\.mlp\.experts\.(?:gate|up|down)_proj$/.exec(path) ?? [];
  if (layer === undefined) return "leave";
  const { num_hidden_layers: count } = Args.parse(config);
  return Number(layer) === 0 || Number(layer) === count - 1 ? "leave" : undefined;
}

/** The factors of gates, and what routing is made of. */
export const keepsDtype = (path: string) => /(_alpha|_beta|mlp\.gate\.(weight|e_score_correction_bias))$/.test(path);

export const seesImages = true;

/** For checkpoints that do not say. Answers end with <|eot|>, not with <|eom|>. */
export const tokenizer = {
  chat_template_type: "muse_spark",
  tool_parser_type: "muse_spark",
  eos_token_ids: [200_001, 200_008],
};
