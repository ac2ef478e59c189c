/**
 * Phi 3 small: LayerNorm, a clipped gate, and scales of embeddings, scores and logits; in all but every so manieth layer tokens
 * see the latest blocks of the text and, each head others, every so manieth block before.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  attentionMask,
  clippedAt,
  type DecoderLayer,
  type Divisible,
  innerPart,
  isSliceable,
  type KeyValueCache,
  KVCache,
  keepOutputs,
  type Layer,
  LayerNorm,
  Linear,
  type Mask,
  type MaskRule,
  Module,
  NamedAttention,
  type Range,
  type Residual,
  RopeScaling,
  type Split,
  SumOfParts,
  scaled,
  shareHeads,
} from "../nn";
import { checkHeads, count, headsOf, size } from "./args";
import type { AwqFacts } from "./awq-facts";
import { CausalLM } from "./language-model";

/** Ids that the tokenizer has no text for. */
const unused = [
  100_256,
  100_258,
  100_259,
  100_260,
  100_264,
  100_265,
  ...Array.from({ length: 85 }, (_, i) => 100_267 + i),
];

const positive = z.number().positive();

export const Args = z
  .object({
    hidden_size: size,
    dense_attention_every_n_layers: size,
    ff_intermediate_size: size,
    gegelu_limit: positive,
    num_hidden_layers: size,
    num_attention_heads: size,
    num_key_value_heads: size,
    layer_norm_epsilon: positive,
    vocab_size: size,
    max_position_embeddings: size.nullish(),
    mup_attn_multiplier: positive.default(1),
    mup_use_scaling: z.boolean().default(true),
    mup_embedding_multiplier: z.number().nullable().default(10),
    mup_width_multiplier: z.number().nullable().default(8),
    rope_embedding_base: positive.default(1_000_000),
    rope_position_scale: positive.default(1),
    rope_scaling: RopeScaling.nullish(),
    blocksparse_block_size: size.default(64),
    blocksparse_num_local_blocks: size.default(16),
    blocksparse_vert_stride: size.default(8),
    /** Whether all heads see the same blocks. */
    blocksparse_homo_head_pattern: z.boolean().default(false),
    dummy_token_indices: z.array(count).default(unused),
  })
  .superRefine(checkHeads);

type Args = z.infer<typeof Args>;

/** Head h sees block b before the latest ones where b + h · step + 1 is a multiple of the stride. */
interface Pattern {
  heads: number;
  /** Tokens of a block. */
  block: number;
  local: number;
  stride: number;
  step: number;
}

function patternOf(args: Args): Pattern {
  const { num_attention_heads: heads, blocksparse_vert_stride: stride } = args;
  const step = args.blocksparse_homo_head_pattern ? 0 : Math.max(1, Math.floor(stride / heads));
  return { heads, block: args.blocksparse_block_size, local: args.blocksparse_num_local_blocks, stride, step };
}

/** All up to a token itself, where so many blocks hold them; where not, an array (B or 1, H, T, S). */
function sparse({ heads, block, local, stride, step }: Pattern): MaskRule {
  return {
    key: "blocks",
    make(h, cache) {
      const length = h.dim(1);
      const offset = cache?.offset ?? 0;
      const usual = attentionMask(h, cache);
      if (typeof offset === "number" && offset + length <= block * local) return usual;
      const causal = attentionMask(h, cache, { asArray: true }) as Tensor | null;
      const total = (cache?.size ?? 0) + length;
      // Columns ahead of a row's own tokens are padding; it counts blocks from its first token on.
      const ahead = typeof offset === "number" ? mx.array([offset], "int32") : offset;
      const first = mx.subtract(total - length, ahead.reshape(-1, 1, 1, 1));
      const blockOf = (columns: Tensor) => columns.subtract(first).floorDivide(block);
      const rows = blockOf(mx.arange(total - length, total).expandDims(1));
      const columns = blockOf(mx.arange(total));
      const turns = mx.arange(heads).multiply(step).add(1).reshape(1, -1, 1, 1);
      const far = columns.add(turns).remainder(stride).equal(0);
      const seen = rows.subtract(columns).less(local).bitwiseOr(far);
      return causal ? seen.bitwiseAnd(causal) : seen;
    },
  };
}

/** Gates and values lie by turns. */
class MLP extends Module implements Divisible {
  up_proj: Layer;
  down_proj: Layer;
  readonly activation: (gate: Tensor, x: Tensor) => Tensor;

  constructor({ hidden_size: D, ff_intermediate_size: hidden, gegelu_limit }: Args) {
    super();
    this.up_proj = new Linear(D, 2 * hidden);
    this.down_proj = new Linear(hidden, D);
    this.activation = clippedAt(gegelu_limit);
  }

  shard(split: Split): void {
    const { up_proj: first, down_proj: last } = this;
    const part = innerPart(last, [], split);
    if (!part || !isSliceable(first) || !isSliceable(last)) return;
    keepOutputs(first, [scaled(part, 2)]);
    this.down_proj = new SumOfParts(last as never, part, split);
  }

  /** x (…, D) → (…, D) */
  forward(x: Tensor): Tensor {
    const [gate, value] = this.up_proj.forward(x).unflatten(-1, [-1, 2]).split(2, -1) as [Tensor, Tensor];
    return this.down_proj.forward(this.activation(gate.squeeze(-1), value.squeeze(-1)));
  }
}

/** Its masks may be of all heads. */
class SparseAttention extends NamedAttention {
  /** Of all heads those of this rank; all where null. */
  #own: Range | null = null;

  override shard(split: Split): void {
    const { heads, kvHeads } = this;
    super.shard(split);
    if (this.heads !== heads) this.#own = shareHeads(heads, kvHeads, split).queries;
  }

  override forward(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const isByHead = this.#own && mask instanceof mx.Tensor && mask.ndim === 4 && mask.dim(1) > 1;
    return super.forward(x, isByHead ? mx.sliceAxis(mask, 1, ...this.#own!) : mask, cache);
  }
}

class Block extends Module implements DecoderLayer {
  self_attn: NamedAttention;
  mlp: MLP;
  input_layernorm: LayerNorm;
  post_attention_layernorm: LayerNorm;
  readonly mask?: MaskRule;
  readonly makeCache?: () => KeyValueCache;

  constructor(args: Args, rule?: MaskRule) {
    super();
    const { hidden_size: dims, layer_norm_epsilon: eps } = args;
    const sizes = headsOf(args);
    const { headDim } = sizes;
    const scaling = args.rope_scaling ?? { type: "linear", factor: 1 / args.rope_position_scale };
    const rope = { dims: headDim, base: args.rope_embedding_base, scaling, maxPositions: args.max_position_embeddings };
    const scale = args.mup_use_scaling ? args.mup_attn_multiplier / headDim : headDim ** -0.5;
    this.self_attn = new SparseAttention({
      ...sizes,
      ...{ dims, rope, bias: true, scale, inputs: "query_key_value", order: "by group", output: "dense" },
    });
    this.mlp = new MLP(args);
    this.input_layernorm = new LayerNorm(dims, eps);
    this.post_attention_layernorm = new LayerNorm(dims, eps);
    if (!rule) return;
    this.mask = rule;
    // Which block a token is in can only be told while all before it are there.
    this.makeCache = () => new KVCache();
  }

  forward(x: Residual, mask: Mask, cache?: KeyValueCache): Residual {
    const h = x.plus(this.self_attn.forward(x.branch(this.input_layernorm), mask, cache));
    return h.plus(this.mlp.forward(h.branch(this.post_attention_layernorm)));
  }
}

export class Model extends CausalLM {
  constructor(args: Args) {
    const { dense_attention_every_n_layers: every, layer_norm_epsilon: eps, mup_width_multiplier: width } = args;
    const rule = sparse(patternOf(args));
    const named = { ...args, rms_norm_eps: eps, tie_word_embeddings: true };
    const dummies = args.dummy_token_indices.filter((id) => id < args.vocab_size);
    super(named, (index) => new Block(args, (index + 1) % every === 0 ? undefined : rule), {
      norm: (dims) => new LayerNorm(dims, eps),
      names: { norm: "final_layernorm" },
      embeddingScale: args.mup_embedding_multiplier || undefined,
      adjustLogits: (logits) => withoutIds(width ? logits.divide(width) : logits, dummies),
    });
  }
}

/** Logits (B, T, V) with these ids out of reach. */
function withoutIds(logits: Tensor, ids: readonly number[]): Tensor {
  if (ids.length === 0) return logits;
  const places = mx.array([...ids], "uint32", [1, 1, ids.length]);
  const [batch, length] = logits.shape as [number, number, number];
  return mx.putAlongAxis(logits, mx.broadcastTo(places, [batch, length, ids.length]), Number.NEGATIVE_INFINITY, {
    axis: -1,
  });
}

export const awq: AwqFacts = {
  noClip: ["query_key_value"],
  groups: [
    { before: "input_layernorm", layers: ["self_attn.query_key_value"], part: "self_attn" },
    { before: "post_attention_layernorm", layers: ["mlp.up_proj"], part: "mlp" },
  ],
};
