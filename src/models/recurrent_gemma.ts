/**
 * RecurrentGemma (Griffin): of three layers two carry a state whose channels fade at rates that the token sets, and one
 * attends to the latest tokens. Botev et al. 2024, arXiv:2404.07839; De et al. 2024, arXiv:2402.19427.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  ArraysCache,
  CausalConv1d,
  type DecoderLayer,
  type ForwardOptions,
  GatedMLP,
  geglu,
  geluApprox,
  type KeyValueCache,
  type Layer,
  Linear,
  layerMasks,
  linearRecurrence,
  type Mask,
  type MaskRule,
  Module,
  parameter,
  Residual,
  recurrent,
  slidingWindow,
  turnConvolutions,
  ZeroCenteredRMSNorm,
} from "../nn";
import { checkHeads, ropeFields, ropeOptions, size, trunkFields } from "./args";
import { type AwqFacts, downGroup } from "./awq-facts";
import { CausalLM } from "./language-model";
import * as llama from "./llama";

const BlockTypes = z.array(z.enum(["recurrent", "attention"])).nonempty();

export const Args = z
  .object({
    ...trunkFields,
    ...ropeFields,
    intermediate_size: size,
    num_attention_heads: size,
    num_key_value_heads: size,
    head_dim: size.nullish(),
    attention_bias: z.boolean().default(false),
    conv1d_width: size.default(4),
    lru_width: size.nullish(),
    logits_soft_cap: z.number().nonnegative().nullish(),
    attention_window_size: size.default(2048),
    partial_rotary_factor: z.number().positive().max(1).default(0.5),
    embeddings_scale_by_sqrt_dim: z.boolean().default(true),
    /** What layers are, over and over. The 2B and the 9B have different names for it. */
    block_types: BlockTypes.nullish(),
    _block_types: BlockTypes.nullish(),
  })
  .superRefine(checkHeads)
  .superRefine(({ num_attention_heads: heads, hidden_size, lru_width, ...args }, context) => {
    const problem = (field: string, message: string) => context.addIssue({ code: "custom", path: [field], message });
    const width = lru_width ?? hidden_size;
    if (width % heads !== 0) problem("lru_width", `is ${width}, but must be a multiple of the heads (${heads})`);
    const types = args.block_types ?? args._block_types;
    if (!types) problem("block_types", "is missing");
    else if (!types.includes("attention")) problem("block_types", `has no "attention"`);
  });

type Args = z.infer<typeof Args>;

/** Whether each row's first token has no other before it, (B, 1, 1); or the same for all rows. */
type Beginning = boolean | Tensor;

/** At zero a root has no slope. */
const least = 1e-12;

/** The Real-Gated Linear Recurrent Unit. */
class Recurrence extends Module {
  recurrent_param: Tensor;
  input_gate_weight: Tensor;
  input_gate_bias: Tensor;
  recurrent_gate_weight: Tensor;
  recurrent_gate_bias: Tensor;

  constructor(
    width: number,
    readonly heads: number,
  ) {
    super();
    const headDim = width / heads;
    this.recurrent_param = parameter(mx.zeros([width]));
    this.input_gate_weight = parameter(mx.zeros([heads, headDim, headDim]));
    this.input_gate_bias = parameter(mx.zeros([heads, headDim]));
    this.recurrent_gate_weight = parameter(mx.zeros([heads, headDim, headDim]));
    this.recurrent_gate_bias = parameter(mx.zeros([heads, headDim]));
  }

  /** x (B, T, C), state (B, C) → y (B, T, C), and the state after each row's last own token, float32. */
  forward(x: Tensor, own: Tensor | null, begins: Beginning, state: Tensor | null): [y: Tensor, state: Tensor] {
    const [batch, length, width] = x.shape as [number, number, number];
    const byHead = x.unflatten(-1, [this.heads, -1]).swapaxes(1, 2);
    const gate = (weight: Tensor, bias: Tensor) =>
      byHead.matmul(weight).swapaxes(1, 2).add(bias).flatten(2, 3).astype("float32").sigmoid();
    const entering = gate(this.input_gate_weight, this.input_gate_bias).multiply(x);
    const rates = mx.logaddexp(this.recurrent_param.astype("float32"), 0).multiply(-8);
    const logs = gate(this.recurrent_gate_weight, this.recurrent_gate_bias).multiply(rates);

    // What enters has the length that the state loses; all of it enters where there is no state yet.
    const share = mx.expm1(logs.multiply(2)).negative().maximum(least).sqrt();
    const places = mx.arange(length).equal(0).reshape(1, length, 1);
    const whole = begins instanceof mx.Tensor ? places.bitwiseAnd(begins) : begins ? places : null;
    const sized = entering.multiply(whole ? mx.where(whole, 1, share) : share);

    const kept = (values: Tensor) => (own ? mx.where(own.expandDims(-1), values, 0) : values);
    const states = linearRecurrence(kept(logs), kept(sized), state);
    const last = mx.sliceAxis(states, 1, length - 1, length).reshape(batch, width);
    return [states.astype(x.dtype), last];
  }
}

class RecurrentBlock extends Module {
  linear_y: Layer;
  linear_x: Layer;
  linear_out: Layer;
  conv_1d: CausalConv1d;
  rg_lru: Recurrence;

  constructor({ hidden_size: D, lru_width, conv1d_width, num_attention_heads }: Args) {
    super();
    const width = lru_width ?? D;
    this.linear_y = new Linear(D, width);
    this.linear_x = new Linear(D, width);
    this.linear_out = new Linear(width, D);
    this.conv_1d = new CausalConv1d(width, conv1d_width);
    this.rg_lru = new Recurrence(width, num_attention_heads);
  }

  /** x (B, T, D), own (B, T): which tokens are a row's own → (B, T, D) */
  forward(x: Tensor, own: Tensor | null, begins: Beginning, cache?: ArraysCache): Tensor {
    const length = x.dim(1);
    const lengths = cache?.lengthsWithin(length);
    const [hidden, recent] = this.conv_1d.forward(this.linear_x.forward(x), { before: cache?.get(0), own, lengths });
    const [y, state] = this.rg_lru.forward(hidden, own, begins, cache?.get(1) ?? null);
    cache?.put(0, recent);
    cache?.put(1, state);
    cache?.advance(length);
    return this.linear_out.forward(y.multiply(geluApprox(this.linear_y.forward(x))));
  }
}

function attentionOf(args: Args): llama.Attention {
  const { hidden_size, num_attention_heads: heads, partial_rotary_factor: share } = args;
  const dims = Math.trunc((args.head_dim ?? hidden_size / heads) * share);
  const rope = { dims, ...ropeOptions(args, { base: 10_000 }) };
  return new llama.Attention({ ...args, rope_traditional: false }, { rope, outputBias: true });
}

type GriffinCache = KeyValueCache | ArraysCache;

class Block extends Module implements DecoderLayer<GriffinCache> {
  temporal_pre_norm: ZeroCenteredRMSNorm;
  temporal_block: RecurrentBlock | llama.Attention;
  channel_pre_norm: ZeroCenteredRMSNorm;
  mlp_block: GatedMLP;
  readonly mask: MaskRule<never>;
  readonly makeCache?: () => GriffinCache;

  constructor(args: Args, type: "recurrent" | "attention") {
    super();
    const { hidden_size: D, rms_norm_eps: eps, intermediate_size, attention_window_size: window } = args;
    const isRecurrent = type === "recurrent";
    this.temporal_pre_norm = new ZeroCenteredRMSNorm(D, eps);
    this.temporal_block = isRecurrent ? new RecurrentBlock(args) : attentionOf(args);
    this.channel_pre_norm = new ZeroCenteredRMSNorm(D, eps);
    this.mlp_block = new GatedMLP(D, Math.floor(intermediate_size / 2), { bias: true, activation: geglu });
    this.mask = isRecurrent ? recurrent : slidingWindow(window);
    if (isRecurrent) this.makeCache = () => new ArraysCache(2);
  }

  /** @param begins which rows begin with these tokens, as a cache of states does not know */
  forward(x: Residual, mask: Mask, cache?: GriffinCache, begins: Beginning = !cache): Residual {
    const branch = x.branch(this.temporal_pre_norm);
    const h = x.plus(
      this.temporal_block instanceof RecurrentBlock
        ? this.temporal_block.forward(branch, mask as Tensor | null, begins, cache as ArraysCache | undefined)
        : this.temporal_block.forward(branch, mask, cache as KeyValueCache | undefined),
    );
    return h.plus(this.mlp_block.forward(h.branch(this.channel_pre_norm)));
  }
}

/** By the position of each row's first token. */
const beginning = (offset: number | Tensor): Beginning =>
  typeof offset === "number" ? offset === 0 : offset.equal(0).expandDims([1, 2]);

export class Model extends CausalLM<GriffinCache> {
  constructor(args: Args) {
    const types = (args.block_types ?? args._block_types)!;
    const cap = args.logits_soft_cap;
    super(args, (index) => new Block(args, types[index % types.length]!), {
      norm: (dims) => new ZeroCenteredRMSNorm(dims, args.rms_norm_eps),
      embeddingScale: args.embeddings_scale_by_sqrt_dim ? Math.sqrt(args.hidden_size) : undefined,
      names: { norm: "final_norm" },
      adjustLogits: cap ? (logits) => logits.divide(cap).tanh().multiply(cap) : undefined,
    });
  }

  override hidden(inputs: Tensor, { cache, inputEmbeddings }: ForwardOptions<GriffinCache> = {}): Tensor {
    const blocks = this.layers as Block[];
    const { embedding, embeddingScale, lastNorm } = this.model;
    const plain = inputEmbeddings ?? embedding.forward(inputs);
    const x = embeddingScale === null ? plain : plain.multiply(embeddingScale);
    const rules = blocks.map(({ mask }) => mask as MaskRule<GriffinCache>);
    const masks = layerMasks(x, rules, cache);
    const attending = blocks.findIndex(({ temporal_block }) => temporal_block instanceof llama.Attention);
    const begins = beginning((cache?.[attending] as KeyValueCache | undefined)?.offset ?? 0);
    const out = blocks.reduce((h, block, i) => block.forward(h, masks[i]!, cache?.[i], begins), new Residual(x));
    return out.branch(lastNorm);
  }

  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const sanitized = super.sanitize(weights);
    turnConvolutions(sanitized);
    return sanitized;
  }
}

export const awq: AwqFacts = {
  noClip: ["q_proj", "k_proj"],
  groups: [
    {
      before: "temporal_pre_norm",
      layers: ["q_proj", "k_proj", "v_proj", "linear_x", "linear_y"].map((name) => `temporal_block.${name}`),
      part: "temporal_block",
    },
    downGroup("mlp_block"),
    {
      before: "channel_pre_norm",
      layers: ["mlp_block.gate_proj", "mlp_block.up_proj"],
      part: "mlp_block",
    },
  ],
};
