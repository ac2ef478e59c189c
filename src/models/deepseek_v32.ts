/** DeepSeek V3.2: DeepSeek V3 whose attention sees the tokens that an indexer chooses. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  among,
  attentionMask,
  CacheList,
  type DecoderLayer,
  initializeRope,
  type KeyValueCache,
  KVCache,
  LatentProjections,
  type Layer,
  type Mask,
  type MaskRule,
  Module,
  type Residual,
  RMSNorm,
  remember,
  SparseIndexer,
  type Split,
  takeChosen,
} from "../nn";
import { ropeOptions, size } from "./args";
import { blockAwq } from "./awq-facts";
import * as deepseek from "./deepseek_v3";
import { latent } from "./gguf/deepseek2";

export const indexerFields = {
  /** Queries of the indexer come from those of attention ahead of their last projection. */
  q_lora_rank: size.default(1536),
  index_head_dim: size.default(128),
  index_n_heads: size.default(64),
  index_topk: size.default(2048),
  /** Whether pairs of features that the indexer turns are neighbours, not halves. */
  indexer_rope_interleave: z.boolean().default(false),
};

export const Args = z.object({ ...deepseek.fields, ...indexerFields }).superRefine(deepseek.checkExperts);

type Args = z.infer<typeof Args>;

/** Latent vectors and keys of attention, and the indexer's keys. */
type SparseCache = CacheList<KeyValueCache>;

function indexerOf(args: Args): SparseIndexer {
  const { base, scaling } = ropeOptions(args, { base: 10_000 });
  const { indexer_rope_interleave: traditional, max_position_embeddings: maxPositions } = args;
  return new SparseIndexer(
    {
      dims: args.hidden_size,
      queryRank: args.q_lora_rank,
      heads: args.index_n_heads,
      headDim: args.index_head_dim,
      topK: args.index_topk,
    },
    initializeRope({ dims: args.qk_rope_head_dim, base, traditional, scaling, maxPositions }),
  );
}

class SparseAttention extends LatentProjections {
  indexer: SparseIndexer;

  constructor(args: Args) {
    const { rope, scale } = deepseek.latentScaling(args);
    super(deepseek.attentionSizes(args), rope, scale);
    this.indexer = indexerOf(args);
  }

  /** x (B, T, D), mask: an array or null → (B, T, D) */
  forward(x: Tensor, mask: Mask, cache?: SparseCache): Tensor {
    const [tokens, index] = cache?.parts ?? [];
    const own = this.project(x, tokens?.offset);
    const seen = remember(own, tokens);
    const { chosen, held } = this.indexer.choose(x, own.latentQueries!, mask, index);
    // Otherwise the indexer's cache would stay a graph that grows with each step.
    if (held.length > 0) [seen.latent] = mx.depends([seen.latent], held) as [Tensor];
    if (!chosen) return this.attend({ ...own, ...seen }, mask);
    if (x.dim(1) > 1) return this.attend({ ...own, ...seen }, among(chosen, seen.latent.dim(2), mask));

    const [rows, mine] = takeChosen({ ...own, ...seen }, chosen, mask);
    return this.attend(rows, mine);
  }

  override shard(split: Split): void {
    super.shard(split, { shared: ["indexer"] });
  }
}

/** Latent attention's mask: the first of a layer's caches has its tokens. */
export const sparseMask: MaskRule<SparseCache> = {
  key: "sparse",
  make: (h, cache) => attentionMask(h, cache?.parts[0], { asArray: true }),
};

class Block extends Module implements DecoderLayer<SparseCache> {
  self_attn: SparseAttention;
  mlp: Layer;
  input_layernorm: RMSNorm;
  post_attention_layernorm: RMSNorm;
  readonly mask = sparseMask;

  constructor(args: Args, index: number) {
    super();
    this.self_attn = new SparseAttention(args);
    this.mlp = deepseek.feedForward(args, index);
    this.input_layernorm = new RMSNorm(args.hidden_size, args.rms_norm_eps);
    this.post_attention_layernorm = new RMSNorm(args.hidden_size, args.rms_norm_eps);
  }

  forward(x: Residual, mask: Mask, cache?: SparseCache): Residual {
    const h = x.plus(this.self_attn.forward(x.branch(this.input_layernorm), mask, cache));
    return h.plus(this.mlp.forward(h.branch(this.post_attention_layernorm)));
  }

  makeCache(): SparseCache {
    return new CacheList([new KVCache(), new KVCache()]);
  }
}

export class Model extends deepseek.LatentLM<SparseCache> {
  constructor(args: Args) {
    super(args, (index) => new Block(args, index));
  }
}

export const mtp = deepseek.latentMtp((args: Args, index) => new Block(args, index));

export const { joins, keepsDtype } = deepseek;

export const awq = blockAwq();

export const gguf = latent({ architecture: "deepseek32", indexer: { turnsNeighbours: false } });
