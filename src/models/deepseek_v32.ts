/** DeepSeek V3.2: DeepSeek V3 whose attention sees the tokens that an indexer chooses. */
import { z } from "zod";
import { UserError } from "../errors";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  among,
  attentionMask,
  CacheList,
  type Choice,
  type DecoderLayer,
  initializeRope,
  type KeyValueCache,
  KVCache,
  type LatentHeads,
  LatentProjections,
  type Layer,
  type Mask,
  type MaskRule,
  Module,
  Residual,
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

/** Whether a layer chooses tokens itself, or takes the choice of the nearest layer ahead of it that does. */
export type IndexerType = "full" | "shared";

type Args = z.infer<typeof Args> & {
  /** By layer; all choose themselves where absent. */
  indexer_types?: readonly IndexerType[] | null;
};

const isShared = ({ indexer_types: types }: Args, index: number): boolean => types?.[index] === "shared";

/** Latent vectors and keys of attention, and the indexer's keys where a layer has one. */
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

/** The tokens that each token sees, (B, 1, T, k); null: all. */
type Chosen = Choice["chosen"];

class SparseAttention extends LatentProjections {
  /** Absent where the layer takes the choice of an earlier one. */
  indexer?: SparseIndexer;

  constructor(args: Args, index: number) {
    const { rope, scale } = deepseek.latentScaling(args);
    super(deepseek.attentionSizes(args), rope, scale);
    if (!isShared(args, index)) this.indexer = indexerOf(args);
  }

  /** x (B, T, D), mask: an array or null → (B, T, D) */
  forward(x: Tensor, mask: Mask, cache?: SparseCache): Tensor {
    return this.sparse(x, mask, cache, null)[0];
  }

  /** The same with what was chosen. @param earlier the choice of an earlier layer, for one without an indexer */
  sparse(x: Tensor, mask: Mask, cache: SparseCache | undefined, earlier: Chosen): [out: Tensor, chosen: Chosen] {
    const [tokens, index] = cache?.parts ?? [];
    const own = this.project(x, tokens?.offset);
    const seen = remember(own, tokens);
    const choice = this.indexer?.choose(x, own.latentQueries!, mask, index);
    const { chosen, held } = choice ?? { chosen: earlier, held: [] };
    // Otherwise the indexer's cache would stay a graph that grows with each step.
    if (held.length > 0) [seen.latent] = mx.depends([seen.latent], held) as [Tensor];
    return [this.#among(chosen, { ...own, ...seen }, mask, x.dim(1)), chosen];
  }

  #among(chosen: Chosen, heads: LatentHeads, mask: Mask, length: number): Tensor {
    if (!chosen) return this.attend(heads, mask);
    if (length > 1) return this.attend(heads, among(chosen, heads.latent.dim(2), mask));
    const [rows, mine] = takeChosen(heads, chosen, mask);
    return this.attend(rows, mine);
  }

  override shard(split: Split): void {
    super.shard(split, { shared: this.indexer ? ["indexer"] : [] });
  }
}

/** Hidden states, with the tokens that the last layer with an indexer chose. */
class ChoosingResidual extends Residual {
  constructor(
    base: Tensor,
    delta: Tensor,
    readonly chosen: Chosen,
  ) {
    super(base, delta);
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
  /** Whether the next layer takes this one's choice. */
  readonly handsOn: boolean;

  constructor(args: Args, index: number) {
    super();
    this.self_attn = new SparseAttention(args, index);
    this.handsOn = isShared(args, index + 1);
    this.mlp = deepseek.feedForward(args, index);
    this.input_layernorm = new RMSNorm(args.hidden_size, args.rms_norm_eps);
    this.post_attention_layernorm = new RMSNorm(args.hidden_size, args.rms_norm_eps);
  }

  forward(x: Residual, mask: Mask, cache?: SparseCache): Residual {
    const { self_attn: attention, handsOn } = this;
    const own = x.branch(this.input_layernorm);
    const earlier = attention.indexer ? null : choiceAhead(x);
    const [attended, chosen] =
      earlier || handsOn ? attention.sparse(own, mask, cache, earlier) : [attention.forward(own, mask, cache), null];
    const h = x.plus(attended);
    const fed = this.mlp.forward(h.branch(this.post_attention_layernorm));
    return handsOn ? new ChoosingResidual(h.value, fed, chosen) : h.plus(fed);
  }

  makeCache(): SparseCache {
    return new CacheList(this.self_attn.indexer ? [new KVCache(), new KVCache()] : [new KVCache()]);
  }
}

/** @throws UserError where the layers ahead are another process's */
function choiceAhead(x: Residual): Chosen {
  if (x instanceof ChoosingResidual) return x.chosen;
  throw new UserError("this layer takes the choice of tokens of one that another process has", {
    hint: "Divide the model's layers by width: mlxlm launch without --pipeline.",
  });
}

export class Model extends deepseek.LatentLM<SparseCache> {
  readonly #sharing: readonly string[];

  constructor(args: Args) {
    super(args, (index) => new Block(args, index));
    const layers = Array.from({ length: args.num_hidden_layers }, (_, index) => index);
    this.#sharing = layers.filter((index) => isShared(args, index)).map((index) => `model.layers.${index}.self_attn.`);
  }

  /** Some checkpoints have indexers in layers that use none. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const unused = this.#sharing.map((path) => `${path}indexer.`);
    return new Map([...super.sanitize(weights)].filter(([name]) => !unused.some((path) => name.startsWith(path))));
  }
}

export const mtp = deepseek.latentMtp((args: Args, index) => new Block(args, index));

export const { joins, keepsDtype } = deepseek;

export const awq = blockAwq();

export const gguf = latent({ architecture: "deepseek32", indexer: { turnsNeighbours: false } });
