/**
 * Hunyuan (mixture of experts): Hunyuan's attention, an expert for all tokens beside those that each chooses, and in some sizes
 * layers that take the keys and values of the one ahead.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import {
  attention,
  Decoder,
  type ForwardOptions,
  GatedMLP,
  highestOfSoftmax,
  joinHeads,
  type KeyValueCache,
  type Layer,
  Linear,
  type Mask,
  Module,
  mixExperts,
  needShape,
  project,
  type Residual,
  RMSNorm,
  RoPE,
  type Routing,
  type SharedRows,
  type SharingLayer,
  SharingResidual,
  SwitchGLU,
  softmaxOfHighest,
  splitHeads,
  stackExperts,
  throughSharingLayers,
} from "../nn";
import { checkHeads, headsOf, size } from "./args";
import { decoder } from "./gguf/decoder";
import { f32, u32 } from "./gguf/facts";
import { expertLayer, plainLayer, sharedExpert, TensorNames } from "./gguf/names";
import { noPlace } from "./gguf/rope";
import { baseOf, ropeFields } from "./hunyuan_v1_dense";
import { CausalLM } from "./language-model";

/** A number, or one for each layer. */
const perLayer = z.union([size, z.array(size)]);

export const Args = z
  .object({
    vocab_size: size,
    hidden_size: size,
    num_hidden_layers: size,
    intermediate_size: size,
    num_attention_heads: size,
    num_key_value_heads: size,
    head_dim: size.nullish(),
    attention_bias: z.boolean().default(false),
    max_position_embeddings: size.nullish(),
    rms_norm_eps: z.number().positive(),
    ...ropeFields,
    use_qk_norm: z.boolean().default(true),
    /** How many experts there are, and how many of them a token uses; one: an MLP in their place. */
    num_experts: size.default(1),
    moe_topk: perLayer.default(1),
    moe_intermediate_size: perLayer.nullish(),
    /** Whether there is a part for all tokens, and of how many experts' width. */
    use_mixed_mlp_moe: z.boolean().default(true),
    num_shared_expert: perLayer.default(1),
    /** Whether so many layers share the first one's keys and values. */
    use_cla: z.boolean().default(false),
    cla_share_factor: size.default(2),
    tie_word_embeddings: z.boolean().default(true),
  })
  .superRefine(checkHeads)
  .superRefine((args, context) => {
    const problem = (field: string, message: string) => context.addIssue({ code: "custom", path: [field], message });
    const { num_hidden_layers: layers, num_experts: all } = args;
    for (const field of ["moe_topk", "moe_intermediate_size", "num_shared_expert"] as const) {
      const list = args[field];
      if (!Array.isArray(list) || list.length === layers) continue;
      problem(field, `has ${list.length} entries, but "num_hidden_layers" is ${layers}`);
    }
    const most = Math.max(...[args.moe_topk].flat());
    if (all > 1 && most > all) problem("moe_topk", `is ${most}, but "num_experts" is ${all}`);
  });

type Args = z.infer<typeof Args>;

const at = (value: number | number[], index: number): number => (Array.isArray(value) ? value[index]! : value);

const sharesAt = ({ use_cla, cla_share_factor: factor }: Args, index: number) => use_cla && index % factor !== 0;

type KeysValues = [keys: Tensor, values: Tensor];

/** Keys and values of another layer are turned, normed and kept again: each layer has norms of its own. */
class Attention extends Module {
  q_proj: Layer;
  k_proj?: Layer;
  v_proj?: Layer;
  o_proj: Layer;
  query_layernorm?: RMSNorm;
  key_layernorm?: RMSNorm;
  readonly rope: RoPE;
  readonly heads: number;
  readonly kvHeads: number;
  readonly scale: number;

  constructor(args: Args, shares: boolean) {
    super();
    const { hidden_size: D, attention_bias: bias, rms_norm_eps: eps } = args;
    const { heads, kvHeads, headDim } = headsOf(args);
    this.q_proj = new Linear(D, heads * headDim, { bias });
    if (!shares) this.k_proj = new Linear(D, kvHeads * headDim, { bias });
    if (!shares) this.v_proj = new Linear(D, kvHeads * headDim, { bias });
    this.o_proj = new Linear(heads * headDim, D, { bias });
    if (args.use_qk_norm) this.query_layernorm = new RMSNorm(headDim, eps);
    if (args.use_qk_norm) this.key_layernorm = new RMSNorm(headDim, eps);
    this.rope = new RoPE(headDim, { base: baseOf(args) });
    this.heads = heads;
    this.kvHeads = kvHeads;
    this.scale = headDim ** -0.5;
  }

  /** x (B, T, D) → (B, T, D), and the keys and values (B, Hkv, T, headDim) that later layers share. */
  forward(x: Tensor, mask: Mask, cache?: KeyValueCache, shared?: KeysValues): [out: Tensor, own: KeysValues] {
    const [queries, own] = this.#project(x, shared);
    const placed = (part: Tensor, norm?: RMSNorm) => {
      const turned = this.rope.forward(part, cache?.offset);
      return norm?.forward(turned) ?? turned;
    };
    const [q, k] = [placed(queries, this.query_layernorm), placed(own[0], this.key_layernorm)];
    const out = attention(q, k, own[1], { scale: this.scale, mask, cache });
    return [this.o_proj.forward(joinHeads(out)), own];
  }

  #project(x: Tensor, shared?: KeysValues): [queries: Tensor, own: KeysValues] {
    const { q_proj, k_proj, v_proj, heads, kvHeads } = this;
    if (!k_proj || !v_proj) return [splitHeads(q_proj.forward(x), heads), shared!];
    const [queries, keys, values] = project(x, [q_proj, k_proj, v_proj]) as [Tensor, Tensor, Tensor];
    return [splitHeads(queries, heads), [splitHeads(keys, kvHeads), splitHeads(values, kvHeads)]];
  }
}

class Gate extends Module {
  wg: Layer;

  constructor(dims: number, experts: number) {
    super();
    this.wg = new Linear(dims, experts, { bias: false });
  }
}

class Experts extends Module {
  shared_mlp?: GatedMLP;
  gate: Gate;
  switch_mlp: SwitchGLU;
  readonly used: number;

  constructor(args: Args, index: number) {
    super();
    const { hidden_size: D, intermediate_size: width, num_experts: all } = args;
    const sharedWidth = width * at(args.num_shared_expert, index);
    if (args.use_mixed_mlp_moe) this.shared_mlp = new GatedMLP(D, sharedWidth);
    this.gate = new Gate(D, all);
    this.switch_mlp = new SwitchGLU(D, at(args.moe_intermediate_size ?? width, index), all);
    this.used = at(args.moe_topk, index);
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor): Tensor {
    const routing = this.#route(this.gate.wg.forward(x).astype("float32"));
    const mixed = mixExperts(x, this.switch_mlp, routing).astype(x.dtype);
    return this.shared_mlp ? mixed.add(this.shared_mlp.forward(x)) : mixed;
  }

  /** The weights of a token's experts sum to one, but that of a single one. */
  #route(logits: Tensor): Routing {
    const { used } = this;
    return used > 1 ? softmaxOfHighest(logits, used) : highestOfSoftmax(logits, used, { normalize: false });
  }
}

class Block extends Module implements SharingLayer {
  self_attn: Attention;
  mlp: Experts | GatedMLP;
  input_layernorm: RMSNorm;
  post_attention_layernorm: RMSNorm;

  constructor(args: Args, index: number) {
    super();
    const { hidden_size: D, rms_norm_eps: eps } = args;
    this.self_attn = new Attention(args, sharesAt(args, index));
    this.mlp = args.num_experts === 1 ? new GatedMLP(D, args.intermediate_size) : new Experts(args, index);
    this.input_layernorm = new RMSNorm(D, eps);
    this.post_attention_layernorm = new RMSNorm(D, eps);
  }

  forward(x: Residual, mask: Mask, cache?: KeyValueCache, _?: Tensor, rows?: SharedRows): Residual {
    const shared = rows && ([rows.keys, rows.values] as KeysValues);
    const [attended, own] = this.self_attn.forward(x.branch(this.input_layernorm), mask, cache, shared);
    const h = x.plus(attended);
    return this.given(h.plus(this.mlp.forward(h.branch(this.post_attention_layernorm))), own);
  }

  protected given(h: Residual, _: KeysValues): Residual {
    return h;
  }
}

/** A block whose keys and values later ones take. */
class GivingBlock extends Block {
  protected override given(h: Residual, [keys, values]: KeysValues): Residual {
    return new SharingResidual(h.value, { keys, values, offset: 0 });
  }
}

/** Layers of which some take the keys and values of the one ahead. */
class SharingDecoder extends Decoder<KeyValueCache> {
  constructor(
    parts: ConstructorParameters<typeof Decoder<KeyValueCache>>,
    readonly owners: readonly number[],
  ) {
    super(...parts);
  }

  override stream(inputs: Tensor, { cache, inputEmbeddings }: ForwardOptions<KeyValueCache> = {}): Residual {
    const x = inputEmbeddings ?? this.embedding.forward(inputs);
    return throughSharingLayers(x, this.layers as SharingLayer[], { cache, owners: this.owners });
  }
}

export class Model extends CausalLM {
  constructor(readonly args: Args) {
    const { num_hidden_layers: layers, cla_share_factor: factor, use_cla } = args;
    const owners = Array.from({ length: layers }, (_, i) => (use_cla ? i - (i % factor) : i));
    const block = (index: number) => new (owners.lastIndexOf(index) > index ? GivingBlock : Block)(args, index);
    super(args, block, { decoder: (...parts) => new SharingDecoder(parts, owners) });
  }

  /** Takes apart what some checkpoints have as one, and stacks the experts. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const sanitized = new Map([...super.sanitize(weights)].flatMap((entry) => this.#apart(...entry)));
    for (const index of this.layers.keys()) {
      const mlp = `model.layers.${index}.mlp`;
      stackExperts(sanitized, { count: this.args.num_experts, from: `${mlp}.experts`, to: `${mlp}.switch_mlp` });
    }
    return sanitized;
  }

  /** Queries, keys and values lie by heads of keys, a group of queries' heads ahead of each; values ahead of gates. */
  #apart(name: string, weight: Tensor): [string, Tensor][] {
    if (name.includes(".gate_and_up_proj.")) {
      const [up, gate] = weight.split(2, 0) as [Tensor, Tensor];
      const named = (part: string) => name.replace("gate_and_up_proj", part);
      return [
        [named("up_proj"), up],
        [named("gate_proj"), gate],
      ];
    }
    if (!name.includes(".qkv_proj.")) return [[name, weight]];
    const { heads, kvHeads, headDim } = headsOf(this.args);
    const rest = weight.shape.slice(1);
    needShape(name, weight, [(heads + 2 * kvHeads) * headDim, ...rest]);
    const group = heads / kvHeads;
    const parts = weight.reshape(kvHeads, group + 2, headDim, ...rest).split([group, group + 1], 1);
    return ["q_proj", "k_proj", "v_proj"].map((part, i) => {
      return [name.replace("qkv_proj", part), parts[i]!.reshape(-1, ...rest)];
    });
  }
}

/** What all layers have alike: files have one number for it. */
function forAll(field: string, value: number | number[]): number {
  const [first, ...others] = [value].flat();
  if (others.some((other) => other !== first)) noPlace(`"${field}" ${JSON.stringify(value)}`);
  return first!;
}

export const gguf = decoder("hunyuan-moe", {
  names: new TensorNames({
    ...plainLayer,
    ...expertLayer("mlp"),
    ...sharedExpert("mlp.shared_mlp"),
    ffn_gate_inp: "mlp.gate.wg",
    attn_q_norm: "self_attn.query_layernorm",
    attn_k_norm: "self_attn.key_layernorm",
  }),
  stretches: false,
  integers: { expert_count: "num_experts" },
  only: { attention_bias: false, use_qk_norm: true, use_cla: false, use_mixed_mlp_moe: true },
  read: (file) => ({
    moe_topk: file.need("expert_used_count"),
    moe_intermediate_size: file.number("expert_feed_forward_length") ?? file.need("feed_forward_length"),
    intermediate_size: file.number("expert_shared_feed_forward_length") ?? file.need("feed_forward_length"),
    num_shared_expert: 1,
  }),
  write(settings) {
    const args = settings as unknown as Args;
    const { intermediate_size: width, num_experts: experts } = args;
    const used = forAll("moe_topk", args.moe_topk);
    const expertWidth = forAll("moe_intermediate_size", args.moe_intermediate_size ?? width);
    // llama.cpp lets the weights of a token's experts sum to one, also where there is one.
    if (experts === 1 || used === 1) noPlace(`"num_experts" ${experts} with "moe_topk" ${used}`);
    return {
      feed_forward_length: u32(expertWidth),
      expert_feed_forward_length: u32(expertWidth),
      expert_shared_feed_forward_length: u32(width * forAll("num_shared_expert", args.num_shared_expert)),
      expert_used_count: u32(used),
      "rope.freq_base": f32(baseOf(args)),
    };
  },
});
