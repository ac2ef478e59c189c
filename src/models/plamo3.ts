/**
 * PLaMo 3: norms before and after each sublayer and on the heads of queries and keys, one projection ahead of attention and one
 * ahead of the gate, and layers that slide, with a rotary base of their own, but for every so manieth.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import {
  attention,
  type Cache,
  type DecoderLayer,
  initializeRope,
  JointGatedMLP,
  joinHeads,
  type KeyValueCache,
  type Layer,
  Linear,
  type Mask,
  type MaskRule,
  Module,
  OffsetRMSNorm,
  type Residual,
  type RopeOptions,
  type RotaryEmbedding,
  slidingWindow,
  splitQueriesKeysValues,
  ZeroCenteredRMSNorm,
} from "../nn";
import { checkHeads, size } from "./args";
import type { AwqFacts } from "./awq-facts";
import { shifted } from "./gguf/changes";
import { decoder, precise } from "./gguf/decoder";
import { f32, u32 } from "./gguf/facts";
import { TensorNames } from "./gguf/names";
import { noPlace } from "./gguf/rope";
import { PlamoLM } from "./plamo-lm";

export const Args = z
  .object({
    hidden_size: size.default(4096),
    num_hidden_layers: size.default(32),
    rms_norm_eps: z.number().positive().default(1e-6),
    tie_word_embeddings: z.boolean().default(true),
    num_attention_heads: size.default(32),
    num_key_value_heads: size.default(4),
    head_dim: size.default(128),
    max_position_embeddings: size.default(2048),
    /** How many tokens ahead of its own a layer that slides sees; the second name comes first. */
    window_size: size.default(2048),
    sliding_window: size.nullish(),
    sliding_window_pattern: size.default(8),
    rope_theta: z.number().positive().default(1_000_000),
    rope_local_theta: z.number().positive().default(10_000),
    /** How far positions of layers of full attention are stretched, by YaRN, and from what length. */
    rope_scaling_factor: z.number().min(1).default(1),
    initial_context_length: size.nullish(),
    intermediate_size: size.default(13_312),
    vocab_size: size.default(32_000),
  })
  .superRefine(checkHeads);

type Args = z.infer<typeof Args>;

const isFull = ({ sliding_window_pattern: every }: Args, index: number) => (index + 1) % every === 0;

class Attention extends Module {
  qkv_proj: Layer;
  o_proj: Layer;
  q_norm: ZeroCenteredRMSNorm;
  k_norm: ZeroCenteredRMSNorm;
  readonly rope: RotaryEmbedding;
  readonly heads: number;
  readonly kvHeads: number;
  readonly scale: number;

  constructor(args: Args, rope: RopeOptions) {
    super();
    const { hidden_size: D, num_attention_heads: heads, num_key_value_heads: kvHeads, head_dim: headDim } = args;
    this.qkv_proj = new Linear(D, (heads + 2 * kvHeads) * headDim, { bias: false });
    this.o_proj = new Linear(heads * headDim, D, { bias: false });
    this.q_norm = new ZeroCenteredRMSNorm(headDim, args.rms_norm_eps);
    this.k_norm = new ZeroCenteredRMSNorm(headDim, args.rms_norm_eps);
    this.rope = initializeRope(rope);
    this.heads = heads;
    this.kvHeads = kvHeads;
    this.scale = headDim ** -0.5;
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const [q, k, v] = splitQueriesKeysValues(this.qkv_proj.forward(x), this, cache?.offset);
    return this.o_proj.forward(joinHeads(attention(q, k, v, { scale: this.scale, mask, cache })));
  }
}

/** What the weights of the norms behind mixer and MLP are counted from. */
const [postMixer, postMlp] = [1 / 5, 1 / 5 ** 1.5];

interface NormedArgs {
  hidden_size: number;
  intermediate_size: number;
  rms_norm_eps: number;
}

interface Mixer<C extends Cache> extends Module {
  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor, mask: Mask, cache?: C): Tensor;
}

/** x + norm(mixer(norm(x))), then h + norm(mlp(norm(h))). The norms behind the parts begin small. */
export class PlamoBlock<C extends Cache = KeyValueCache> extends Module implements DecoderLayer<C> {
  mlp: JointGatedMLP;
  pre_mixer_norm: ZeroCenteredRMSNorm;
  post_mixer_norm: OffsetRMSNorm;
  pre_mlp_norm: ZeroCenteredRMSNorm;
  post_mlp_norm: OffsetRMSNorm;

  constructor(
    readonly mixer: Mixer<C>,
    { hidden_size: D, intermediate_size, rms_norm_eps: eps }: NormedArgs,
    readonly mask?: MaskRule<C>,
    readonly makeCache?: () => C,
  ) {
    super();
    this.mlp = new JointGatedMLP(D, intermediate_size);
    this.pre_mixer_norm = new ZeroCenteredRMSNorm(D, eps);
    this.post_mixer_norm = new OffsetRMSNorm(D, eps, postMixer);
    this.pre_mlp_norm = new ZeroCenteredRMSNorm(D, eps);
    this.post_mlp_norm = new OffsetRMSNorm(D, eps, postMlp);
  }

  forward(x: Residual, mask: Mask, cache?: C): Residual {
    const mixed = this.mixer.forward(x.branch(this.pre_mixer_norm), mask, cache);
    const h = x.plus(this.post_mixer_norm.forward(mixed));
    return h.plus(this.post_mlp_norm.forward(this.mlp.forward(h.branch(this.pre_mlp_norm))));
  }
}

/** The base of a layer's rotation, and how far it is stretched: layers that slide are not. */
function ropeOf(args: Args, full: boolean): RopeOptions {
  const { head_dim: dims, rope_scaling_factor: factor, initial_context_length: original } = args;
  if (!full) return { dims, base: args.rope_local_theta };
  const yarn = { type: "yarn", factor, original_max_position_embeddings: original, truncate: false };
  return { dims, base: args.rope_theta, scaling: factor === 1 ? null : yarn };
}

export class Model extends PlamoLM {
  constructor(args: Args) {
    const block = (index: number) => {
      const full = isFull(args, index);
      const window = (args.sliding_window ?? args.window_size) + 1;
      return new PlamoBlock(new Attention(args, ropeOf(args, full)), args, full ? undefined : slidingWindow(window));
    };
    super(args, block, new ZeroCenteredRMSNorm(args.hidden_size, args.rms_norm_eps));
  }
}

/** The first half of what one projection makes is the gate, so no layer makes what the last one takes. */
export const awq: AwqFacts = {
  noClip: ["qkv_proj"],
  groups: [
    { before: "pre_mixer_norm", layers: ["mixer.qkv_proj"], part: "mixer" },
    { before: "pre_mlp_norm", layers: ["mlp.gate_up_proj"], part: "mlp" },
  ],
};

/** What both kinds of layers have, in GGUF files. */
export const layerNames = {
  attn_norm: "pre_mixer_norm",
  attn_qkv: "mixer.qkv_proj",
  attn_output: "mixer.o_proj",
  ffn_norm: "pre_mlp_norm",
  ffn_up: "mlp.gate_up_proj",
  ffn_down: "mlp.down_proj",
};

/** Tensors without an ending. */
export const bareNames = {
  post_attention_norm: "post_mixer_norm.weight",
  post_ffw_norm: "post_mlp_norm.weight",
};

/** Files have the norms' whole weights. */
export const normChanges = {
  pre_mixer_norm: shifted(1),
  post_mixer_norm: shifted(postMixer),
  pre_mlp_norm: shifted(1),
  post_mlp_norm: shifted(postMlp),
  "mixer.q_norm": shifted(1),
  "mixer.k_norm": shifted(1),
  "model.norm": shifted(1),
};

export const gguf = decoder("plamo3", {
  names: new TensorNames(
    { ...layerNames, attn_q_norm: "mixer.q_norm", attn_k_norm: "mixer.k_norm" },
    { parameters: bareNames, layers: "model.layers.layers" },
  ),
  changes: () => normChanges,
  ropeBase: 1_000_000,
  read(file, { rope_scaling: scaling }) {
    if (scaling) file.wrong("its positions are stretched; of PLaMo 3 mlxlm reads files whose are not");
    const window = file.number("attention.sliding_window");
    return {
      window_size: window,
      // Without a window every layer sees all.
      sliding_window_pattern: window ? (file.number("attention.sliding_window_pattern") ?? 8) : 1,
      rope_local_theta: precise(file.number("rope.freq_base_swa") ?? 10_000),
    };
  },
  write(settings) {
    const args = settings as unknown as Args;
    if (args.rope_scaling_factor !== 1) noPlace(`"rope_scaling_factor" ${args.rope_scaling_factor}`);
    return {
      "attention.sliding_window": u32(args.sliding_window ?? args.window_size),
      "attention.sliding_window_pattern": u32(args.sliding_window_pattern),
      "rope.freq_base_swa": f32(args.rope_local_theta),
    };
  },
});
