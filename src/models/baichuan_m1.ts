/**
 * Baichuan M1: keys and values are mixed with those of the token before, by two factors a head, ahead of the rotation; some
 * layers slide, and may have other numbers of heads; the head's rows have length one.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  ArraysCache,
  attention,
  attentionMask,
  CacheList,
  type DecoderLayer,
  GatedMLP,
  joinHeads,
  type KeyValueCache,
  KVCache,
  type Layer,
  Linear,
  type Mask,
  type MaskRule,
  Module,
  parameter,
  type Residual,
  RMSNorm,
  RoPE,
  RotatingKVCache,
  recurrent,
  splitHeads,
} from "../nn";
import { size, trunkFields } from "./args";
import { type AwqFacts, downGroup, gatedGroup } from "./awq-facts";
import { CausalLM } from "./language-model";

export const Args = z
  .object({
    ...trunkFields,
    intermediate_size: size,
    num_attention_heads: size,
    num_key_value_heads: size,
    /** Of layers that slide, where they are others. */
    num_swa_attention_heads: size.nullish(),
    num_swa_key_value_heads: size.nullish(),
    rope_theta: z.number().positive(),
    sliding_window: size,
    sliding_window_layers: z.array(z.int().nonnegative()),
    /** How many tokens are mixed. */
    conv_window: z.literal(2),
    tie_word_embeddings: z.boolean().default(false),
  })
  .superRefine((args, context) => {
    const problem = (field: string, message: string) => context.addIssue({ code: "custom", path: [field], message });
    for (const slides of [false, true]) {
      const [heads, kvHeads] = headsOf(args, slides);
      const [field, kvField] = slides
        ? ["num_swa_attention_heads", "num_swa_key_value_heads"]
        : ["num_attention_heads", "num_key_value_heads"];
      if (args.hidden_size % heads !== 0) {
        problem(field, `is ${heads}, but must divide "hidden_size" (${args.hidden_size})`);
      }
      if (heads % kvHeads !== 0) problem(kvField, `is ${kvHeads}, but must divide the number of heads (${heads})`);
    }
  });

type Args = z.infer<typeof Args>;

type HeadFields = Pick<
  Args,
  "num_attention_heads" | "num_key_value_heads" | "num_swa_attention_heads" | "num_swa_key_value_heads"
>;

/** Numbers of heads of queries, and of keys and values. */
function headsOf(args: HeadFields, slides: boolean): [heads: number, kvHeads: number] {
  return [
    (slides && args.num_swa_attention_heads) || args.num_attention_heads,
    (slides && args.num_swa_key_value_heads) || args.num_key_value_heads,
  ];
}

type Pair = CacheList<ArraysCache | KeyValueCache>;

const parts = (cache: Pair | undefined) => (cache?.parts ?? []) as [ArraysCache?, KeyValueCache?];

/** Which tokens are a row's own, (B, T), how many are, and what came before, each null for "all" or "nothing". */
interface Neighbours {
  own: Tensor | null;
  lengths: readonly number[] | null;
  before: Tensor | null;
}

class Attention extends Module {
  W_pack: Layer;
  o_proj: Layer;
  /** Factors on a head's previous and present key, and value: (1, 1, Hkv, 1, 2). */
  conv_k: Tensor;
  conv_v: Tensor;
  readonly rope: RoPE;
  readonly scale: number;

  constructor(
    { hidden_size: D, rope_theta: base }: Args,
    readonly heads: number,
    readonly kvHeads: number,
  ) {
    super();
    const headDim = D / heads;
    this.W_pack = new Linear(D, D + 2 * kvHeads * headDim, { bias: false });
    this.o_proj = new Linear(D, D, { bias: false });
    this.conv_k = parameter(mx.zeros([1, 1, kvHeads, 1, 2]));
    this.conv_v = parameter(mx.zeros([1, 1, kvHeads, 1, 2]));
    this.rope = new RoPE(headDim, { base });
    this.scale = headDim ** -0.5;
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor, mask: Mask, cache?: Pair): Tensor {
    const { heads, kvHeads, scale } = this;
    const [state, keysValues] = parts(cache);
    const length = x.dim(1);
    const offset = keysValues?.offset ?? 0;
    const split = splitHeads(this.W_pack.forward(x), heads + 2 * kvHeads).split([heads, heads + kvHeads], 1);
    const [q, k, v] = split as [Tensor, Tensor, Tensor];

    const own = recurrent.make(x, state) as Tensor | null;
    const lengths = state?.lengthsWithin(length) ?? null;
    const [keys, lastKey] = mixed(k, this.conv_k, { own, lengths, before: state?.get(0) ?? null });
    const [values, lastValue] = mixed(v, this.conv_v, { own, lengths, before: state?.get(1) ?? null });
    state?.put(0, lastKey);
    state?.put(1, lastValue);
    state?.advance(length);

    const turned = (heads: Tensor) => this.rope.forward(heads, offset);
    const out = attention(turned(q), turned(keys), values, { scale, mask, cache: keysValues });
    return this.o_proj.forward(joinHeads(out));
  }
}

/** Each token of x (B, H, T, D) with the one before, weighted; and each row's last own token, (B, H, 1, D). */
function mixed(x: Tensor, factors: Tensor, { own, lengths, before }: Neighbours): [mixed: Tensor, last: Tensor] {
  const [batch, heads, length, dims] = x.shape as [number, number, number, number];
  const entering = own ? mx.where(own.expandDims([1, -1]), x, 0) : x;
  const all = mx.concatenate([before ?? mx.zeros([batch, heads, 1, dims], x.dtype), entering], { axis: 2 });
  const [past, present] = factors.reshape(heads, 1, 2).split(2, -1) as [Tensor, Tensor];
  const previous = mx.sliceAxis(all, 2, 0, length);
  const last = lengths
    ? mx.takeAlongAxis(all, mx.array([...lengths], "int32", [batch, 1, 1, 1]), { axis: 2 })
    : mx.contiguous(mx.sliceAxis(all, 2, length, length + 1));
  return [previous.multiply(past).add(x.multiply(present)), last];
}

/** Attention's mask; that of the mixing is made where it is used. */
const beside = (window: number | null): MaskRule<Pair> => ({
  key: `beside a neighbour, window ${window}`,
  make: (h, cache) => attentionMask(h, parts(cache)[1], { window }),
});

class Block extends Module implements DecoderLayer<Pair> {
  self_attn: Attention;
  mlp: GatedMLP;
  input_layernorm: RMSNorm;
  post_attention_layernorm: RMSNorm;
  readonly mask: MaskRule<Pair>;
  readonly window: number | null;

  constructor(args: Args, index: number) {
    super();
    const { hidden_size: D, rms_norm_eps: eps } = args;
    const slides = args.sliding_window_layers.includes(index);
    this.self_attn = new Attention(args, ...headsOf(args, slides));
    this.mlp = new GatedMLP(D, args.intermediate_size);
    this.input_layernorm = new RMSNorm(D, eps);
    this.post_attention_layernorm = new RMSNorm(D, eps);
    this.window = slides ? args.sliding_window : null;
    this.mask = beside(this.window);
  }

  forward(x: Residual, mask: Mask, cache?: Pair): Residual {
    const h = x.plus(this.self_attn.forward(x.branch(this.input_layernorm), mask, cache));
    return h.plus(this.mlp.forward(h.branch(this.post_attention_layernorm)));
  }

  makeCache(): Pair {
    const rows = this.window ? new RotatingKVCache(this.window) : new KVCache();
    return new CacheList<ArraysCache | KeyValueCache>([new ArraysCache(2), rows]);
  }
}

export class Model extends CausalLM<Pair> {
  constructor(args: Args) {
    super(args, (index) => new Block(args, index));
  }

  /** Gives the head's rows length one, unless they are packed: then they have it. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const sanitized = super.sanitize(weights);
    const head = sanitized.get("lm_head.weight");
    if (!head || sanitized.has("lm_head.scales")) return sanitized;
    const wide = head.astype("float32");
    const lengths = wide.square().sum({ axis: -1, keepdims: true }).sqrt();
    // As close to one as rounding leaves them: those of a saved model.
    const near = lengths
      .subtract(1)
      .abs()
      .less(Math.max(1e-6, mx.finfo(head.dtype).eps / 2));
    return sanitized.set("lm_head.weight", mx.where(near, head, wide.divide(lengths.add(1e-7)).astype(head.dtype)));
  }
}

export const awq: AwqFacts = {
  noClip: ["W_pack"],
  groups: [
    { before: "input_layernorm", layers: ["self_attn.W_pack"] },
    downGroup("mlp"),
    gatedGroup("post_attention_layernorm"),
  ],
};
