/** DBRX: LayerNorm without biases, one bounded projection for queries, keys and values, and experts whose weights sum to one. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import {
  type DecoderLayer,
  type KeyValueCache,
  type Layer,
  LayerNorm,
  Linear,
  type Mask,
  Module,
  mixExperts,
  NamedAttention,
  needShape,
  type Residual,
  SwitchGLU,
  softmaxOfHighest,
  stackExperts,
} from "../nn";
import { size } from "./args";
import { type AwqFacts, downGroup } from "./awq-facts";
import { precise } from "./gguf/decoder";
import { f32, type GgufFacts, u32 } from "./gguf/facts";
import { TensorNames } from "./gguf/names";
import { noPlace } from "./gguf/rope";
import { NamedLM } from "./named-lm";

export const Args = z
  .object({
    vocab_size: size,
    d_model: size,
    n_layers: size,
    n_heads: size,
    max_seq_len: size.nullish(),
    attn_config: z.object({
      kv_n_heads: size,
      clip_qkv: z.number().positive().nullish(),
      rope_theta: z.number().positive(),
    }),
    ffn_config: z.object({
      ffn_hidden_size: size,
      moe_num_experts: size,
      moe_top_k: size,
      /** The norm by which experts' weights are made to be one: with no other are they positive parts of a whole. */
      moe_normalize_expert_weights: z.literal(1).nullish(),
    }),
  })
  .superRefine(({ d_model: dims, n_heads: heads, attn_config, ffn_config }, context) => {
    const problem = (path: string[], message: string) => context.addIssue({ code: "custom", path, message });
    const { kv_n_heads: kvHeads } = attn_config;
    const { moe_top_k: used, moe_num_experts: all } = ffn_config;
    if (dims % heads !== 0) problem(["n_heads"], `is ${heads}, but must divide "d_model" (${dims})`);
    if (heads % kvHeads !== 0)
      problem(["attn_config", "kv_n_heads"], `is ${kvHeads}, but must divide "n_heads" (${heads})`);
    if (used > all) problem(["ffn_config", "moe_top_k"], `is ${used}, but "moe_num_experts" is ${all}`);
  });

type Args = z.infer<typeof Args>;

/** Of all norms. */
const epsilon = 1e-5;

class NormedAttention extends Module {
  norm_1: LayerNorm;
  norm_2: LayerNorm;
  attn: NamedAttention;

  constructor({ d_model: dims, n_heads: heads, attn_config }: Args) {
    super();
    const headDim = dims / heads;
    this.norm_1 = new LayerNorm(dims, epsilon, { bias: false });
    this.norm_2 = new LayerNorm(dims, epsilon, { bias: false });
    this.attn = new NamedAttention({
      ...{ dims, heads, kvHeads: attn_config.kv_n_heads, headDim, bias: false, clip: attn_config.clip_qkv },
      ...{ rope: { dims: headDim, base: attn_config.rope_theta }, inputs: "Wqkv", output: "out_proj" },
    });
  }
}

class Router extends Module {
  layer: Layer;

  constructor(dims: number, experts: number) {
    super();
    this.layer = new Linear(dims, experts, { bias: false });
  }
}

class Experts extends Module {
  router: Router;
  switch_mlp: SwitchGLU;
  readonly used: number;

  constructor({ d_model: dims, ffn_config }: Args) {
    super();
    const { moe_num_experts: all, ffn_hidden_size: hidden } = ffn_config;
    this.router = new Router(dims, all);
    this.switch_mlp = new SwitchGLU(dims, hidden, all);
    this.used = ffn_config.moe_top_k;
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor): Tensor {
    // Probabilities of all, made to sum to one over some, are those of a softmax over these alone.
    const { experts, weights } = softmaxOfHighest(this.router.layer.forward(x).astype("float32"), this.used);
    return mixExperts(x, this.switch_mlp, { experts, weights: weights.astype(x.dtype) });
  }
}

class Block extends Module implements DecoderLayer {
  ffn: Experts;
  norm_attn_norm: NormedAttention;

  constructor(args: Args) {
    super();
    this.ffn = new Experts(args);
    this.norm_attn_norm = new NormedAttention(args);
  }

  forward(x: Residual, mask: Mask, cache?: KeyValueCache): Residual {
    const { norm_1, norm_2, attn } = this.norm_attn_norm;
    const h = x.plus(attn.forward(x.branch(norm_1), mask, cache));
    return h.plus(this.ffn.forward(h.branch(norm_2)));
  }
}

export class Model extends NamedLM {
  constructor(readonly args: Args) {
    const { d_model: dims, vocab_size: vocab, n_layers: layers } = args;
    super(
      { dims, vocab, layers, tied: false },
      { trunk: "transformer", embedding: "wte", layers: "blocks", norm: "norm_f", head: ".lm_head" },
      () => new Block(args),
      new LayerNorm(dims, epsilon, { bias: false }),
    );
  }

  /** Stacks experts, which transformers saves one below the other and mlx-lm one by one. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const sanitized = super.sanitize(weights);
    const { d_model: D, ffn_config } = this.args;
    const { moe_num_experts: count, ffn_hidden_size: hidden } = ffn_config;
    for (const index of this.layers.keys()) {
      const ffn = `transformer.blocks.${index}.ffn`;
      const [from, to] = [`${ffn}.experts`, `${ffn}.switch_mlp`];
      stackExperts(sanitized, { count, from, to, names });
      for (const [ours, theirs] of Object.entries(names)) {
        const joint = sanitized.get(`${from}.mlp.${theirs}`);
        if (!joint) continue;
        needShape(`${from}.mlp.${theirs}`, joint, [count * hidden, D]);
        const parts = joint.reshape(count, hidden, D);
        sanitized.set(`${to}.${ours}.weight`, theirs === "w2" ? parts.swapaxes(1, 2) : parts);
        sanitized.delete(`${from}.mlp.${theirs}`);
      }
    }
    return sanitized;
  }
}

/** What checkpoints call an expert's projections. */
const names = { gate_proj: "w1", up_proj: "v1", down_proj: "w2" };

export const awq: AwqFacts = {
  noClip: ["Wqkv"],
  groups: [
    { before: "norm_attn_norm.norm_1", layers: ["norm_attn_norm.attn.Wqkv"], part: "norm_attn_norm.attn" },
    downGroup("ffn.switch_mlp"),
    {
      before: "norm_attn_norm.norm_2",
      layers: ["ffn.switch_mlp.gate_proj", "ffn.switch_mlp.up_proj", "ffn.router.layer"],
      part: "ffn",
    },
  ],
};

const layer = {
  attn_norm: "norm_attn_norm.norm_1",
  attn_qkv: "norm_attn_norm.attn.Wqkv",
  attn_output: "norm_attn_norm.attn.out_proj",
  attn_output_norm: "norm_attn_norm.norm_2",
  ffn_gate_inp: "ffn.router.layer",
  ffn_gate_exps: "ffn.switch_mlp.gate_proj",
  ffn_up_exps: "ffn.switch_mlp.up_proj",
  ffn_down_exps: "ffn.switch_mlp.down_proj",
};

export const gguf: GgufFacts = {
  architecture: "dbrx",
  names: new TensorNames(layer, {
    outer: { token_embd: "transformer.wte", output_norm: "transformer.norm_f" },
    layers: "transformer.blocks",
  }),
  normOffset: 0,
  read: (file) => ({
    vocab_size: file.shape("token_embd.weight")?.[0] ?? file.wrong("there is no token_embd.weight"),
    d_model: file.need("embedding_length"),
    n_layers: file.need("block_count"),
    n_heads: file.need("attention.head_count"),
    max_seq_len: file.need("context_length"),
    attn_config: {
      kv_n_heads: file.need("attention.head_count_kv"),
      clip_qkv: precise(file.need("attention.clamp_kqv")),
      rope_theta: precise(file.need("rope.freq_base")),
    },
    ffn_config: {
      ffn_hidden_size: file.need("feed_forward_length"),
      moe_num_experts: file.need("expert_count"),
      moe_top_k: file.need("expert_used_count"),
    },
  }),
  write(config) {
    const { attn_config, ffn_config, ...args } = config as Args;
    if (!attn_config.clip_qkv) noPlace('"attn_config" without "clip_qkv"');
    const fields = {
      context_length: u32(args.max_seq_len ?? 2048),
      embedding_length: u32(args.d_model),
      block_count: u32(args.n_layers),
      feed_forward_length: u32(ffn_config.ffn_hidden_size),
      "attention.head_count": u32(args.n_heads),
      "attention.head_count_kv": u32(attn_config.kv_n_heads),
      "attention.clamp_kqv": f32(attn_config.clip_qkv),
      "attention.layer_norm_epsilon": f32(epsilon),
      "rope.freq_base": f32(attn_config.rope_theta),
      expert_count: u32(ffn_config.moe_num_experts),
      expert_used_count: u32(ffn_config.moe_top_k),
    };
    return { fields, tensors: {} };
  },
};
