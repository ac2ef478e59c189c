/**
 * Gemma 4 (text): Gemma 3 with plain norms, values that are normed too, a factor on each layer, wider heads and partial
 * rotation in layers of full attention. Small ones have an input for each layer and share keys and values between the last
 * layers; large ones take their values from the keys, and may have experts beside the MLP.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  type CacheOptions,
  Decoder,
  Embedding,
  type ForwardOptions,
  GatedMLP,
  geglu,
  type KeyValueCache,
  type Layer,
  Linear,
  layerCaches,
  type Mask,
  type MaskRule,
  Module,
  mixExperts,
  type PerLayerGate,
  type PerLayerTrunk,
  parameter,
  perLayerDelta,
  perLayerInputs,
  Residual,
  RMSNorm,
  RopeScaling,
  type Routing,
  rowOwners,
  type SharedRows,
  SharingAttention,
  type SharingLayer,
  SharingResidual,
  SwitchGLU,
  throughSharingLayers,
} from "../nn";
import { AttentionType, checkHeads, checkLayerTypes, count, maskOf, ropeOptions, size } from "./args";
import { decoder, precise } from "./gguf/decoder";
import { f32, flag, type GgufFacts, u32 } from "./gguf/facts";
import { ropeFactorsName } from "./gguf/llama3-scaling";
import { sandwichLayer, TensorNames } from "./gguf/names";
import { noPlace } from "./gguf/rope";
import { CausalLM } from "./language-model";

const ropes = {
  full_attention: { rope_type: "proportional", partial_rotary_factor: 0.25, rope_theta: 1_000_000 },
  sliding_attention: { rope_type: "default", rope_theta: 10_000 },
};

export const Args = z
  .object({
    hidden_size: size.default(1536),
    num_hidden_layers: size.default(35),
    intermediate_size: size.default(6144),
    num_attention_heads: size.default(8),
    head_dim: size.default(256),
    /** Of layers of full attention; theirs is `head_dim` too where it is null. */
    global_head_dim: size.nullish().default(512),
    rms_norm_eps: z.number().positive().default(1e-6),
    vocab_size: size.default(262_144),
    vocab_size_per_layer_input: size.nullish(),
    num_key_value_heads: size.default(1),
    /** Of layers whose values are their keys. */
    num_global_key_value_heads: size.nullish(),
    num_kv_shared_layers: count.default(20),
    hidden_size_per_layer_input: count.nullish().default(256),
    rope_traditional: z.boolean().default(false),
    rope_parameters: z.record(z.string(), RopeScaling).nullish(),
    sliding_window: size.default(512),
    sliding_window_pattern: size.default(5),
    max_position_embeddings: size.default(131_072),
    attention_k_eq_v: z.boolean().default(false),
    final_logit_softcapping: z.number().positive().nullish().default(30),
    use_double_wide_mlp: z.boolean().default(true),
    enable_moe_block: z.boolean().default(false),
    num_experts: size.nullish(),
    top_k_experts: size.nullish(),
    moe_intermediate_size: size.nullish(),
    layer_types: z.array(AttentionType).nullish(),
    tie_word_embeddings: z.boolean().default(true),
  })
  .superRefine(checkHeads)
  .superRefine(checkLayerTypes)
  .superRefine((args, context) => {
    const problem = (field: keyof typeof args, message: string) =>
      context.addIssue({ code: "custom", path: [field], message });
    const { num_attention_heads: heads, num_global_key_value_heads: kvHeads } = args;
    if (kvHeads && heads % kvHeads !== 0) {
      const message = `is ${kvHeads}, but "num_attention_heads" (${heads}) must be a multiple of it`;
      problem("num_global_key_value_heads", message);
    }
    const { num_kv_shared_layers: shared, num_hidden_layers: layers } = args;
    if (shared > layers) problem("num_kv_shared_layers", `is ${shared}, but "num_hidden_layers" is ${layers}`);
    else if (rowOwners(typesOf(args), shared).includes(-1)) {
      problem("num_kv_shared_layers", `is ${shared}: no layer ahead of these has the type of one of them`);
    }
    if (!args.enable_moe_block) return;
    for (const field of ["num_experts", "top_k_experts", "moe_intermediate_size"] as const) {
      if (!args[field]) problem(field, `must be more than 0, as "enable_moe_block" is true`);
    }
    if (args.top_k_experts! > args.num_experts!) {
      problem("top_k_experts", `is ${args.top_k_experts}, but "num_experts" is ${args.num_experts}`);
    }
  });

type Args = z.infer<typeof Args>;

type TypeFields = Pick<Args, "layer_types" | "num_hidden_layers" | "sliding_window_pattern">;

function typesOf({ layer_types, num_hidden_layers, sliding_window_pattern: pattern }: TypeFields): AttentionType[] {
  const usual = (_: unknown, i: number) => ((i + 1) % pattern === 0 ? "full_attention" : "sliding_attention");
  return layer_types ?? Array.from({ length: num_hidden_layers }, usual);
}

/** A layer's place: its type, and whether it has keys and values of its own, and gives them to others. */
interface Place {
  type: AttentionType;
  owns: boolean;
}

function attentionOf(args: Args, { type, owns }: Place): SharingAttention {
  const isFull = type === "full_attention";
  const dims = (isFull && args.global_head_dim) || args.head_dim;
  const valuesAreKeys = args.attention_k_eq_v && isFull;
  return new SharingAttention({
    dims: args.hidden_size,
    heads: args.num_attention_heads,
    kvHeads: (valuesAreKeys && args.num_global_key_value_heads) || args.num_key_value_heads,
    eps: args.rms_norm_eps,
    owns,
    valuesAreKeys,
    rope: {
      dims,
      traditional: args.rope_traditional,
      maxPositions: args.max_position_embeddings,
      ...ropeOptions({ rope_parameters: args.rope_parameters ?? ropes }, { base: 10_000, layerType: type }),
    },
  });
}

/** Scores of experts, from hidden states with a norm of their own. */
class Router extends Module {
  proj: Layer;
  /** (D) */
  scale: Tensor;
  /** Factor on each expert's weight, (E). */
  per_expert_scale: Tensor;
  readonly eps: number;
  readonly expertsPerToken: number;

  constructor(args: Args) {
    super();
    const { hidden_size: D } = args;
    const experts = args.num_experts!;
    this.proj = new Linear(D, experts, { bias: false });
    this.scale = parameter(mx.ones([D]));
    this.per_expert_scale = parameter(mx.ones([experts]));
    this.eps = args.rms_norm_eps;
    this.expertsPerToken = args.top_k_experts!;
  }

  /** h (B, T, D) → both (B, T, k) */
  forward(h: Tensor): Routing {
    const normed = mx.fast.rmsNorm(h, this.scale.multiply(h.dim(-1) ** -0.5), this.eps);
    const scores = this.proj.forward(normed);
    const k = this.expertsPerToken;
    const order = mx.argpartition(scores, -k, { axis: -1 });
    const experts = mx.stopGradient(order.at(mx.ellipsis, mx.slice(-k)));
    const weights = mx.softmax(scores.takeAlongAxis(experts, -1), { axis: -1 });
    return { experts, weights: weights.multiply(this.per_expert_scale.take(experts, 0)) };
  }
}

class Experts extends Module {
  switch_glu: SwitchGLU;

  constructor({ hidden_size, moe_intermediate_size, num_experts }: Args) {
    super();
    this.switch_glu = new SwitchGLU(hidden_size, moe_intermediate_size!, num_experts!, { activation: geglu });
  }
}

class Block extends Module implements SharingLayer {
  self_attn: SharingAttention;
  mlp: GatedMLP;
  input_layernorm: RMSNorm;
  post_attention_layernorm: RMSNorm;
  pre_feedforward_layernorm: RMSNorm;
  post_feedforward_layernorm: RMSNorm;
  router?: Router;
  experts?: Experts;
  post_feedforward_layernorm_1?: RMSNorm;
  post_feedforward_layernorm_2?: RMSNorm;
  pre_feedforward_layernorm_2?: RMSNorm;
  per_layer_input_gate?: Layer;
  per_layer_projection?: Layer;
  post_per_layer_input_norm?: RMSNorm;
  /** (1) */
  layer_scalar: Tensor;
  readonly mask?: MaskRule;

  constructor(args: Args, place: Place) {
    super();
    const { hidden_size: D, hidden_size_per_layer_input: P } = args;
    const norm = () => new RMSNorm(D, args.rms_norm_eps);
    const width = args.use_double_wide_mlp && !place.owns ? 2 : 1;
    this.self_attn = attentionOf(args, place);
    this.mlp = new GatedMLP(D, args.intermediate_size * width, { activation: geglu });
    this.input_layernorm = norm();
    this.post_attention_layernorm = norm();
    this.pre_feedforward_layernorm = norm();
    this.post_feedforward_layernorm = norm();
    if (args.enable_moe_block) {
      this.router = new Router(args);
      this.experts = new Experts(args);
      this.post_feedforward_layernorm_1 = norm();
      this.post_feedforward_layernorm_2 = norm();
      this.pre_feedforward_layernorm_2 = norm();
    }
    if (P) {
      this.per_layer_input_gate = new Linear(D, P, { bias: false });
      this.per_layer_projection = new Linear(P, D, { bias: false });
      this.post_per_layer_input_norm = norm();
    }
    this.layer_scalar = parameter(mx.ones([1]));
    this.mask = maskOf(place.type, args);
  }

  forward(x: Residual, mask: Mask, cache?: KeyValueCache, input?: Tensor, rows?: SharedRows): Residual {
    const [attended, own] = this.self_attn.forward(x.branch(this.input_layernorm), mask, cache, rows);
    let h = x.plus(this.post_attention_layernorm.forward(attended));
    h = h.plus(this.post_feedforward_layernorm.forward(this.#feedForward(h)));
    if (input) h = h.plus(perLayerDelta(this as Required<PerLayerGate>, h.value, input));
    return this.result(h.value.multiply(this.layer_scalar), own);
  }

  #feedForward(h: Residual): Tensor {
    const fed = this.mlp.forward(h.branch(this.pre_feedforward_layernorm));
    if (!this.router) return fed;
    const routing = this.router.forward(h.value);
    const mixed = mixExperts(this.pre_feedforward_layernorm_2!.forward(h.value), this.experts!.switch_glu, routing);
    return this.post_feedforward_layernorm_1!.forward(fed).add(this.post_feedforward_layernorm_2!.forward(mixed));
  }

  protected result(h: Tensor, _: SharedRows): Residual {
    return new Residual(h);
  }
}

/** A block whose keys and values later ones attend to. A kind of its own: a recomputed block gives hidden states alone. */
class GivingBlock extends Block {
  protected override result(h: Tensor, rows: SharedRows): Residual {
    return new SharingResidual(h, rows);
  }
}

type Parts = ConstructorParameters<typeof Decoder<KeyValueCache>>;

class TextDecoder extends Decoder {
  embed_tokens_per_layer?: Embedding;
  per_layer_model_projection?: Layer;
  per_layer_projection_norm?: RMSNorm;

  constructor(
    args: Args,
    readonly owners: readonly number[],
    parts: Parts,
  ) {
    super(...parts);
    const { hidden_size: D, hidden_size_per_layer_input: P, num_hidden_layers: layers } = args;
    if (!P) return;
    this.embed_tokens_per_layer = new Embedding(args.vocab_size_per_layer_input ?? args.vocab_size, layers * P);
    this.per_layer_model_projection = new Linear(D, layers * P, { bias: false });
    this.per_layer_projection_norm = new RMSNorm(P, args.rms_norm_eps);
  }

  override forward(inputs: Tensor, { cache, inputEmbeddings }: ForwardOptions = {}): Tensor {
    const x = (inputEmbeddings ?? this.embed_tokens.forward(inputs)).multiply(this.embeddingScale!);
    const own = this.embed_tokens_per_layer && perLayerInputs(this as Required<PerLayerTrunk>, inputs, x);
    const { layers, owners, norm } = this;
    return throughSharingLayers(x, layers, { cache, owners, inputs: own }).branch(norm);
  }
}

export class Model extends CausalLM {
  /** How many layers have keys and values of their own: the first. */
  readonly owning: number;

  constructor(args: Args) {
    const { num_hidden_layers: layers, num_kv_shared_layers: shared, final_logit_softcapping: cap } = args;
    const types = typesOf(args);
    const owners = rowOwners(types, shared);
    const block = (index: number) => {
      const gives = owners.lastIndexOf(index) > index;
      return new (gives ? GivingBlock : Block)(args, { type: types[index]!, owns: owners[index] === index });
    };
    super(args, block, {
      embeddingScale: Math.sqrt(args.hidden_size),
      decoder: (...parts) => new TextDecoder(args, owners, parts),
      adjustLogits: cap ? (logits) => logits.divide(cap).tanh().multiply(cap) : undefined,
    });
    this.owning = layers - shared;
  }

  /** Drops ranges of activations, and projections that no layer reads; takes the experts' joint weights apart. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const sanitized = new Map<string, Tensor>();
    for (const [name, tensor] of super.sanitize(weights)) {
      if (/(input|output)_(min|max)/.test(name)) continue;
      const unread = /layers\.(\d+)\.self_attn\.(k_proj|v_proj|k_norm)\./.exec(name);
      if (unread && Number(unread[1]) >= this.owning) continue;
      const [, prefix, projection] = /^(.*\.experts\.)(gate_up_proj|down_proj)$/.exec(name) ?? [];
      if (projection === "gate_up_proj") {
        const [gate, up] = tensor.split(2, -2) as [Tensor, Tensor];
        sanitized.set(`${prefix}switch_glu.gate_proj.weight`, mx.contiguous(gate));
        sanitized.set(`${prefix}switch_glu.up_proj.weight`, mx.contiguous(up));
      } else if (projection) sanitized.set(`${prefix}switch_glu.down_proj.weight`, tensor);
      else sanitized.set(name, tensor);
    }
    return sanitized;
  }

  /** Layers without rows of their own have no cache either. */
  override makeCache(options?: CacheOptions): KeyValueCache[] {
    return layerCaches(this.layers.slice(0, this.owning), options);
  }
}

/** The router decides which experts are read: it stays at 8 bits. */
export const quantize = (path: string) => (path.endsWith("router.proj") ? { groupSize: 64, bits: 8 } : undefined);

/** A factor so large that a pair of features does not turn. */
const still = 1e30;

/** @param prefix what stands before the names of the checkpoint */
export const facts = (prefix?: string): GgufFacts =>
  decoder("gemma4", {
    names: new TensorNames(
      {
        ...sandwichLayer,
        ffn_gate_inp: "router.proj",
        ffn_gate_exps: "experts.switch_glu.gate_proj",
        ffn_up_exps: "experts.switch_glu.up_proj",
        ffn_down_exps: "experts.switch_glu.down_proj",
        pre_ffw_norm_2: "pre_feedforward_layernorm_2",
        post_ffw_norm_1: "post_feedforward_layernorm_1",
        post_ffw_norm_2: "post_feedforward_layernorm_2",
        inp_gate: "per_layer_input_gate",
        proj: "per_layer_projection",
        post_norm: "post_per_layer_input_norm",
      },
      {
        prefix,
        parameters: {
          "layer_output_scale.weight": "layer_scalar",
          "ffn_gate_inp.scale": "router.scale",
          "ffn_down_exps.scale": "router.per_expert_scale",
        },
        halves: { ffn_gate_up_exps: ["experts.switch_glu.gate_proj", "experts.switch_glu.up_proj"] },
        outer: {
          per_layer_token_embd: "model.embed_tokens_per_layer",
          per_layer_model_proj: "model.per_layer_model_projection",
          per_layer_proj_norm: "model.per_layer_projection_norm",
        },
      },
    ),
    windows: { period: 5, typeOf: (settings, index) => typesOf(settings as unknown as Args)[index]! },
    turning: ({ global_head_dim: whole, headDim }) => (whole as number) || headDim,
    stretches: false,
    readsFactors: true,
    integers: {
      "attention.shared_kv_layers": "num_kv_shared_layers",
      embedding_length_per_layer_input: "hidden_size_per_layer_input",
      expert_count: "num_experts",
      expert_used_count: "top_k_experts",
      expert_feed_forward_length: "moe_intermediate_size",
    },
    floats: { final_logit_softcapping: "final_logit_softcapping" },
    only: { rope_traditional: false },
    read(file, common) {
      const layers = common.num_hidden_layers as number;
      const [widths, heads] = [file.list("feed_forward_length") ?? [], file.list("attention.head_count_kv") ?? []];
      const types = (common.layer_types as string[] | undefined) ?? file.wrong("no layer of it slides");
      const [full, sliding] = ["full_attention", "sliding_attention"].map(
        (type) => heads[types.indexOf(type)] ?? heads[0],
      );
      const factors = file.factors(ropeFactorsName) ?? [];
      const turning = factors.filter((factor) => factor < still / 2).length;
      return {
        head_dim: file.need("attention.key_length_swa"),
        global_head_dim: file.need("attention.key_length"),
        partial_rotary_factor: undefined,
        intermediate_size: Math.min(...widths),
        use_double_wide_mlp: new Set(widths).size > 1,
        num_key_value_heads: sliding,
        num_global_key_value_heads: full === sliding ? undefined : full,
        attention_k_eq_v: file.shape(`blk.${types.indexOf("full_attention")}.attn_v.weight`) === undefined,
        num_kv_shared_layers: common.num_kv_shared_layers ?? 0,
        hidden_size_per_layer_input: common.hidden_size_per_layer_input ?? 0,
        vocab_size_per_layer_input: file.shape("per_layer_token_embd.weight")?.[0],
        enable_moe_block: file.number("expert_count") !== undefined,
        final_logit_softcapping: common.final_logit_softcapping ?? null,
        rope_theta: undefined,
        rope_parameters: {
          full_attention: {
            rope_type: "proportional",
            partial_rotary_factor: factors.length > 0 ? turning / factors.length : 1,
            rope_theta: common.rope_theta,
          },
          sliding_attention: { rope_type: "default", rope_theta: precise(file.number("rope.freq_base_swa") ?? 10_000) },
        },
        layer_types: types.slice(0, layers),
      };
    },
    write(settings) {
      const args = settings as unknown as Args;
      const { num_hidden_layers: layers, num_kv_shared_layers: shared, intermediate_size: width, head_dim } = args;
      const types = typesOf(args);
      const rope = (layerType: string) =>
        ropeOptions({ rope_parameters: args.rope_parameters ?? ropes }, { base: 10_000, layerType });
      const [full, sliding] = [rope("full_attention"), rope("sliding_attention")];
      if (full.scaling?.rope_type !== "proportional") noPlace("a rotation of full attention that is not proportional");
      if ((full.scaling?.factor ?? 1) !== 1) noPlace("a stretched rotation");
      if ((sliding.scaling?.rope_type ?? "default") !== "default") noPlace("a rotation of sliding layers");
      const wide = args.use_double_wide_mlp ? 2 : 1;
      const kvHeads = (args.attention_k_eq_v && args.num_global_key_value_heads) || args.num_key_value_heads;
      return {
        feed_forward_length: u32(
          Array.from({ length: layers }, (_, i) => (i < layers - shared ? width : width * wide)),
        ),
        "attention.head_count_kv": u32(
          types.map((type) => (type === "full_attention" ? kvHeads : args.num_key_value_heads)),
        ),
        "attention.key_length": u32(args.global_head_dim || head_dim),
        "attention.value_length": u32(args.global_head_dim || head_dim),
        "attention.key_length_swa": u32(head_dim),
        "attention.value_length_swa": u32(head_dim),
        "rope.dimension_count_swa": u32(head_dim),
        "rope.freq_base": f32(full.base),
        "rope.freq_base_swa": f32(sliding.base),
        embedding_length_per_layer_input: u32(args.hidden_size_per_layer_input ?? 0),
        "attention.sliding_window": u32(args.sliding_window),
        "attention.sliding_window_pattern": flag(types.map((type) => type === "sliding_attention")),
      };
    },
    tensors(settings) {
      const args = settings as unknown as Args;
      const { scaling } = ropeOptions(
        { rope_parameters: args.rope_parameters ?? ropes },
        { base: 10_000, layerType: "full_attention" },
      );
      const pairs = (args.global_head_dim || args.head_dim) / 2;
      const turning = Math.trunc(pairs * (scaling?.partial_rotary_factor ?? 1));
      return { [ropeFactorsName]: Array.from({ length: pairs }, (_, i) => (i < turning ? 1 : still)) };
    },
  });

export const gguf = facts();
