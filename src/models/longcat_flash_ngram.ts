/**
 * LongCat-Flash with n-grams: a token's embedding is the mean of its own and of vectors for it and the tokens before it, which
 * tables of prime-like sizes give by the remainder of what they count to.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  ArraysCache,
  type CacheOptions,
  type DecoderLayer,
  Embedding,
  type ForwardOptions,
  type Layer,
  Linear,
  layerCaches,
  Module,
  RMSNorm,
  recurrent,
  throughLayers,
} from "../nn";
import { size } from "./args";
import type { LanguageModel } from "./language-model";
import * as longcat from "./longcat_flash";

export const Args = z
  .object({
    ...longcat.fields,
    /** Entries of a table of n-grams, in vocabularies. */
    ngram_vocab_size_ratio: size.default(78),
    /** The longest n-grams, and how many tables there are for each length. */
    emb_neighbor_num: z.int().min(2).default(4),
    emb_split_num: size.default(4),
  })
  .superRefine(longcat.checkFields)
  .superRefine(({ hidden_size, emb_neighbor_num: longest, emb_split_num: tables }, context) => {
    const all = tables * (longest - 1);
    if (hidden_size % all === 0) return;
    const message = `makes ${all} tables of n-grams, which must divide "hidden_size" (${hidden_size})`;
    context.addIssue({ code: "custom", path: ["emb_split_num"], message });
  });

type Args = z.infer<typeof Args>;

/** A table of n-grams: their length, its entries, and what each token before the last counts for, the nearest first. */
interface Table {
  length: number;
  entries: number;
  factors: readonly number[];
}

function tablesOf(args: Args): Table[] {
  const { vocab_size: vocab, emb_split_num: perLength, emb_neighbor_num: longest } = args;
  return Array.from({ length: perLength * (longest - 1) }, (_, i) => {
    const length = 2 + Math.floor(i / perLength);
    const entries = args.ngram_vocab_size_ratio * vocab + 2 * i + 1;
    const factors = [vocab % entries];
    while (factors.length < length - 1) factors.push((factors.at(-1)! * vocab) % entries);
    return { length, entries, factors };
  });
}

class NgramEmbedding extends Module {
  word_embeddings: Embedding;
  embedders: Embedding[];
  post_projs: Layer[];
  readonly tables: readonly Table[];
  /** How many tokens before a token count. */
  readonly past: number;

  constructor(args: Args) {
    super();
    const { hidden_size: D } = args;
    this.tables = tablesOf(args);
    const dims = D / this.tables.length;
    this.word_embeddings = new Embedding(args.vocab_size, D);
    this.embedders = this.tables.map(({ entries }) => new Embedding(entries, dims));
    this.post_projs = this.tables.map(() => new Linear(dims, D, { bias: false }));
    this.past = args.emb_neighbor_num - 1;
  }

  /** Token ids (B, T) → (B, T, D). The cache holds the latest ids. */
  forward(inputs: Tensor, cache?: ArraysCache): Tensor {
    const [batch, length] = inputs.shape as [number, number];
    const { past } = this;
    const own = recurrent.make(inputs, cache) as Tensor | null;
    // Where there is no token, the id is 0.
    const ids = own ? mx.where(own, inputs.astype("int64"), 0) : inputs.astype("int64");
    const context = mx.concatenate([cache?.get(0) ?? mx.zeros([batch, past], "int64"), ids], { axis: 1 });
    cache?.put(0, latest(context, past, cache.lengthsWithin(length)));
    cache?.advance(length);
    const back = (count: number) => mx.sliceAxis(context, 1, past - count, past - count + length);

    const counted = this.tables.map(({ entries, factors }) =>
      factors.reduce((sum, factor, i) => sum.add(back(i + 1).multiply(factor)), ids).remainder(entries),
    );
    const all = counted.map((places, i) => this.post_projs[i]!.forward(this.embedders[i]!.forward(places)));
    const sum = all.reduce((sum, one) => sum.add(one), this.word_embeddings.forward(inputs));
    return sum.divide(1 + this.tables.length);
  }
}

/** The last `past` own ids of each row of context (B, past + T). */
function latest(context: Tensor, past: number, lengths: readonly number[] | null): Tensor {
  const length = context.dim(1) - past;
  if (!lengths) return mx.contiguous(mx.sliceAxis(context, 1, length, length + past));
  const places = lengths.flatMap((own) => Array.from({ length: past }, (_, i) => own + i));
  return mx.takeAlongAxis(context, mx.array(places, "int32", [lengths.length, past]), { axis: 1 });
}

class Trunk extends Module {
  ngram_embeddings: NgramEmbedding;
  layers: longcat.Block[];
  norm: RMSNorm;

  constructor(args: Args) {
    super();
    this.ngram_embeddings = new NgramEmbedding(args);
    this.layers = Array.from({ length: args.num_layers }, () => new longcat.Block(args));
    this.norm = new RMSNorm(args.hidden_size, args.rms_norm_eps);
  }
}

type NgramCache = ArraysCache | longcat.LayerCache;

export class Model extends Module implements LanguageModel {
  readonly model: Trunk;
  lm_head: Layer;
  readonly #args: Args;

  constructor(args: Args) {
    super();
    this.model = new Trunk(args);
    this.lm_head = new Linear(args.hidden_size, args.vocab_size, { bias: false });
    this.#args = args;
  }

  get layers(): readonly DecoderLayer<longcat.LayerCache>[] {
    return this.model.layers;
  }

  get vocabSize(): number {
    return this.model.ngram_embeddings.word_embeddings.weight.dim(0);
  }

  /** The first cache is the embedding's. */
  forward(inputs: Tensor, { cache, inputEmbeddings }: ForwardOptions<NgramCache> = {}): Tensor {
    const { ngram_embeddings, norm } = this.model;
    const [context, ...others] = (cache ?? []) as [ArraysCache?, ...longcat.LayerCache[]];
    const x = inputEmbeddings ?? ngram_embeddings.forward(inputs, context);
    return this.lm_head.forward(throughLayers(x, this.layers, cache && others).branch(norm));
  }

  sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const renamed = [...weights].map(([name, weight]): [string, Tensor] => [
      name.replace(/^model\.embed_tokens\./, "model.ngram_embeddings.word_embeddings."),
      weight,
    ]);
    return longcat.sanitizeLayers(new Map(renamed), this.#args);
  }

  makeCache(options?: CacheOptions): NgramCache[] {
    return [new ArraysCache(1), ...layerCaches(this.layers, options)];
  }
}

export { awq, joins, keepsDtype, quantize } from "./longcat_flash";
