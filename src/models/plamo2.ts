/**
 * PLaMo 2: PLaMo 3's blocks, most of them with a Mamba-2 state space that makes what enters and leaves its state, and its step
 * sizes, from the convolved input, each normed; attention that slides between.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  ArraysCache,
  attention,
  CausalConv1d,
  fullAttention,
  joinHeads,
  type KeyValueCache,
  type Layer,
  Linear,
  type Mask,
  Module,
  parameter,
  RoPE,
  recurrent,
  selectiveStateSpace,
  slidingWindow,
  splitHeads,
  swiglu,
  ZeroCenteredRMSNorm,
} from "../nn";
import { checkHeads, count, size } from "./args";
import type { AwqFacts } from "./awq-facts";
import { convolution, decayRate } from "./gguf/changes";
import { decoder } from "./gguf/decoder";
import { u32 } from "./gguf/facts";
import { TensorNames } from "./gguf/names";
import { PlamoLM } from "./plamo-lm";
import { bareNames, layerNames, normChanges, PlamoBlock } from "./plamo3";

export const Args = z
  .object({
    hidden_size: size.default(4096),
    num_hidden_layers: size.default(32),
    rms_norm_eps: z.number().positive().default(1e-6),
    tie_word_embeddings: z.boolean().default(true),
    num_attention_heads: size.default(32),
    num_key_value_heads: size.default(4),
    /** Width of a head, of attention and of the state space. */
    hidden_size_per_head: size.default(128),
    max_position_embeddings: size.default(2048),
    /** How many tokens ahead of its own attention sees, but in these layers. */
    attention_window_size: size.default(2048),
    full_attention_idx: z.array(count).nullish(),
    mamba_d_state: size.default(64),
    mamba_d_conv: size.default(4),
    mamba_num_heads: size.default(64),
    /** Every how many layers one is attention, that in the middle of them. */
    mamba_step: size.min(2).default(2),
    mamba_enabled: z.boolean().default(true),
    intermediate_size: size.default(13_312),
    vocab_size: size.default(32_000),
  })
  .superRefine(({ hidden_size_per_head: head_dim, ...args }, context) => checkHeads({ ...args, head_dim }, context));

type Args = z.infer<typeof Args>;

type Steps = Pick<Args, "mamba_enabled" | "mamba_step" | "num_hidden_layers">;

function isMamba({ mamba_enabled, mamba_step: step, num_hidden_layers: layers }: Steps, index: number): boolean {
  if (!mamba_enabled) return false;
  const middle = Math.floor(step / 2);
  return layers <= middle ? index !== layers - 1 : index % step !== middle;
}

class Mamba extends Module {
  in_proj: Layer;
  conv1d: CausalConv1d;
  bcdt_proj: Layer;
  dt_proj: Layer;
  dt_bias: Tensor;
  A_log: Tensor;
  D: Tensor;
  dt_norm_weight: Tensor;
  B_norm_weight: Tensor;
  C_norm_weight: Tensor;
  out_proj: Layer;
  /** Of the step sizes. */
  readonly limits = [0, Number.POSITIVE_INFINITY] as const;

  constructor(readonly args: Args) {
    super();
    const { hidden_size: D, mamba_num_heads: heads, mamba_d_state: state } = args;
    const inner = heads * args.hidden_size_per_head;
    const steps = Math.max(64, Math.floor(D / 16));
    const linear = (inputs: number, outputs: number) => new Linear(inputs, outputs, { bias: false });
    this.in_proj = linear(D, 2 * inner);
    this.conv1d = new CausalConv1d(inner, args.mamba_d_conv, { bias: false });
    this.bcdt_proj = linear(inner, steps + 2 * state);
    this.dt_proj = linear(steps, heads);
    this.dt_bias = parameter(mx.zeros([heads]));
    this.A_log = parameter(mx.scope(() => mx.arange(1, heads + 1, 1, { dtype: "float32" }).log()));
    this.D = parameter(mx.ones([heads]));
    this.dt_norm_weight = parameter(mx.ones([steps]));
    this.B_norm_weight = parameter(mx.ones([state]));
    this.C_norm_weight = parameter(mx.ones([state]));
    this.out_proj = linear(inner, D);
  }

  /** x (B, T, D), own (B, T): which tokens are a row's own → (B, T, D) */
  forward(x: Tensor, mask: Mask, cache?: ArraysCache): Tensor {
    const own = mask as Tensor | null;
    const [batch, length] = x.shape as [number, number, number];
    const { mamba_num_heads: heads, mamba_d_state: size, rms_norm_eps: eps } = this.args;
    const [z, hidden] = this.in_proj.forward(x).unflatten(-1, [heads, -1]).split(2, -1) as [Tensor, Tensor];
    const options = { before: cache?.get(0), own, lengths: cache?.lengthsWithin(length), silu: true };
    const [mixed, recent] = this.conv1d.forward(hidden.flatten(-2), options);

    const [entering, leaving, steps] = this.bcdt_proj.forward(mixed).split([size, 2 * size], -1) as Triple;
    const grouped = (part: Tensor, weight: Tensor) => mx.fast.rmsNorm(part, weight, eps).expandDims(2);
    const inputs = {
      x: mixed.unflatten(-1, [heads, -1]),
      B: grouped(entering, this.B_norm_weight),
      C: grouped(leaving, this.C_norm_weight),
      dt: this.dt_proj.forward(mx.fast.rmsNorm(steps, this.dt_norm_weight, eps)),
    };
    const [y, state] = selectiveStateSpace(inputs, this, cache?.get(1) ?? null, own);
    cache?.put(0, recent);
    cache?.put(1, state);
    cache?.advance(length);
    return this.out_proj.forward(swiglu(z, y).reshape(batch, length, -1));
  }
}

type Triple = [Tensor, Tensor, Tensor];

/** Queries and keys are normed by head, with weights of each head's own. */
class Attention extends Module {
  qkv_proj: Layer;
  o_proj: Layer;
  q_weight: Tensor;
  k_weight: Tensor;
  readonly rope: RoPE;
  readonly heads: number;
  readonly kvHeads: number;
  readonly scale: number;

  constructor(args: Args) {
    super();
    const { hidden_size: D, num_attention_heads: heads, num_key_value_heads: kvHeads } = args;
    const headDim = args.hidden_size_per_head;
    this.qkv_proj = new Linear(D, (heads + 2 * kvHeads) * headDim, { bias: false });
    this.o_proj = new Linear(heads * headDim, D, { bias: false });
    this.q_weight = parameter(mx.ones([heads, headDim]));
    this.k_weight = parameter(mx.ones([kvHeads, headDim]));
    this.rope = new RoPE(headDim);
    this.heads = heads;
    this.kvHeads = kvHeads;
    this.scale = headDim ** -0.5;
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const { heads, kvHeads } = this;
    const all = splitHeads(this.qkv_proj.forward(x), heads + 2 * kvHeads);
    const [queries, keys, v] = all.split([heads, heads + kvHeads], 1) as Triple;
    const placed = (part: Tensor, weight: Tensor) =>
      this.rope.forward(mx.fast.rmsNorm(part, null, 1e-6).multiply(weight.expandDims(1)), cache?.offset);
    const [q, k] = [placed(queries, this.q_weight), placed(keys, this.k_weight)];
    return this.o_proj.forward(joinHeads(attention(q, k, v, { scale: this.scale, mask, cache })));
  }
}

function blockOf(args: Args, index: number): PlamoBlock<ArraysCache> | PlamoBlock {
  if (isMamba(args, index)) return new PlamoBlock(new Mamba(args), args, recurrent, () => new ArraysCache(2));
  const full = args.full_attention_idx?.includes(index);
  return new PlamoBlock(
    new Attention(args),
    args,
    full ? fullAttention : slidingWindow(args.attention_window_size + 1),
  );
}

export class Model extends PlamoLM<ArraysCache | KeyValueCache> {
  constructor(args: Args) {
    const norm = new ZeroCenteredRMSNorm(args.hidden_size, args.rms_norm_eps);
    super(args, (index) => blockOf(args, index) as PlamoBlock<ArraysCache | KeyValueCache>, norm);
  }
}

/** States and step sizes are float32 whatever the weights are. */
export const awq: AwqFacts = {
  noClip: ["qkv_proj"],
  groups: [
    { before: "pre_mixer_norm", layers: ["mixer.qkv_proj", "mixer.in_proj"], part: "mixer" },
    { before: "pre_mlp_norm", layers: ["mlp.gate_up_proj"], part: "mlp" },
  ],
};

const mixerNames = {
  ssm_in: "mixer.in_proj",
  ssm_conv1d: "mixer.conv1d",
  ssm_x: "mixer.bcdt_proj",
  ssm_dt: "mixer.dt_proj",
  ssm_out: "mixer.out_proj",
};

/** Tensors that are no module's weight. */
const parameters = {
  ...bareNames,
  ssm_a: "mixer.A_log",
  ssm_d: "mixer.D",
  "ssm_dt.bias": "mixer.dt_bias",
  ssm_dt_norm: "mixer.dt_norm_weight",
  ssm_b_norm: "mixer.B_norm_weight",
  ssm_c_norm: "mixer.C_norm_weight",
  "attn_q_norm.weight": "mixer.q_weight",
  "attn_k_norm.weight": "mixer.k_weight",
};

/** By layer, where it attends and 0 where it does not. */
const perLayer = (args: Args, heads: number) =>
  u32(Array.from({ length: args.num_hidden_layers }, (_, index) => (isMamba(args, index) ? 0 : heads)));

export const gguf = decoder("plamo2", {
  names: new TensorNames({ ...layerNames, ...mixerNames }, { parameters, layers: "model.layers.layers" }),
  changes: () => ({ ...normChanges, "mixer.conv1d": convolution, "mixer.A_log": decayRate }),
  // Files don't say which tokens attention sees: these are the published models'.
  only: { attention_window_size: 2048, full_attention_idx: [] },
  integers: {
    "attention.key_length": "hidden_size_per_head",
    "ssm.state_size": "mamba_d_state",
    "ssm.conv_kernel": "mamba_d_conv",
    "ssm.time_step_rank": "mamba_num_heads",
  },
  read(file, { num_hidden_layers }) {
    const layers = num_hidden_layers as number;
    const heads = file.list("attention.head_count_kv") ?? [];
    const attends = Array.from({ length: layers }, (_, index) => (heads.length === 1 ? heads[0] : heads[index]) !== 0);
    if (attends.every(Boolean)) return { mamba_enabled: false };
    const steps = Array.from({ length: 2 * layers }, (_, i) => i + 2);
    const fits = (mamba_step: number) =>
      attends.every(
        (is, index) => is !== isMamba({ mamba_enabled: true, mamba_step, num_hidden_layers: layers }, index),
      );
    return { mamba_step: steps.find(fits) ?? file.wrong("its layers of attention do not stand at equal distances") };
  },
  write(settings) {
    const args = settings as unknown as Args;
    const width = u32(args.hidden_size_per_head);
    return {
      // Of all layers: where the first has none, llama.cpp turns no features, and never ends.
      "attention.head_count_kv": perLayer(args, args.num_key_value_heads),
      "attention.value_length": width,
      "rope.dimension_count": width,
      "ssm.inner_size": u32(args.mamba_num_heads * args.hidden_size_per_head),
      "ssm.group_count": u32(0),
    };
  },
});
