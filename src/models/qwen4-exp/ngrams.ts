/** Qwen 4 Exp's tables of n-grams: rows by hashes of the last tokens, which the residual streams gate. */
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import { type ArraysCache, Embedding, type Layer, Linear, Module, parameter, silu } from "../../nn";
import { CentredNorm } from "./centred-norm";

/** What of the model's configuration the tables ask for. */
export interface NgramArgs {
  hidden_size: number;
  vocab_size: number;
  rms_norm_eps: number;
  eos_token_id?: number | number[] | null;
  /** The end of a text for n-grams, where it is not the first of those. */
  ple_eos_token_id?: number | null;
  seed: number;
  hc_count: number;
  ngram_size: number;
  heads_per_ngram: number;
  ngram_vocab_size_base: number;
  make_ngram_vocab_size_divisible_by: number;
  ple_embed_dim?: number | null;
  ple_conv_kernel_size: number;
}

export const eosOf = ({
  eos_token_id: eos,
  ple_eos_token_id: own,
}: Pick<NgramArgs, "eos_token_id" | "ple_eos_token_id">): number | undefined =>
  own ?? (Array.isArray(eos) ? eos[0] : eos) ?? undefined;

export const ngramHeads = ({
  ngram_size,
  heads_per_ngram,
}: Pick<NgramArgs, "ngram_size" | "heads_per_ngram">): number => (ngram_size - 1) * heads_per_ngram;

/** Width of a table's rows. */
export const rowDims = (args: NgramArgs): number => (args.ple_embed_dim ?? args.hidden_size) / ngramHeads(args);

/** What the hashes of a table are made with: a factor for each distance, and each head's rows. @param table which of the model's it is */
export function hashesOf(args: NgramArgs, table: number) {
  const heads = ngramHeads(args);
  const rows = primesFrom(args.ngram_vocab_size_base, (table + 1) * heads).slice(-heads);
  const starts = rows.map((_, head) => rows.slice(0, head).reduce((sum, count) => sum + count, 0));
  const factors = factorsOf(args.vocab_size, args.ngram_size, BigInt(args.seed) + 10_007n * BigInt(table));
  return { factors, rows, starts };
}

/** Rows of a table by hashes of a token and those ahead of it in its text, several of each length. */
class NgramEmbedding extends Module {
  ngram_embedding: Embedding;
  /** By a token's distance, (N), int64. */
  readonly _factors: Tensor;
  /** How many rows each head has, and where they begin, int64. */
  readonly _rows: Tensor;
  readonly _starts: Tensor;

  /** @param table which of the model's tables it is */
  constructor(
    readonly args: NgramArgs,
    table: number,
  ) {
    super();
    const { make_ngram_vocab_size_divisible_by: divisor } = args;
    const { factors, rows, starts } = hashesOf(args, table);
    const total = rows.reduce((sum, count) => sum + count, 0);
    this.ngram_embedding = new Embedding(Math.ceil(total / divisor) * divisor, rowDims(args));
    this._factors = mx.keep(mx.array(factors));
    this._rows = mx.keep(mx.array(rows, "int64"));
    this._starts = mx.keep(mx.array(starts, "int64"));
  }

  /** ids (B, T), before: the N − 1 tokens ahead of them (B, N − 1) → (B, T, Dp) */
  forward(ids: Tensor, before: Tensor): Tensor {
    const { ngram_size: longest, heads_per_ngram: heads } = this.args;
    const eos = eosOf(this.args)!;
    const length = ids.dim(1);
    const all = mx.concatenate([before, ids], { axis: 1 }).astype("int64");
    let token = mx.sliceAxis(all, 1, longest - 1, longest - 1 + length);
    let mixed = token.multiply(this._factors.at(0));
    const found: Tensor[] = [];
    for (let distance = 1; distance < longest; distance++) {
      const first = longest - 1 - distance;
      const earlier = mx.sliceAxis(all, 1, first, first + length);
      // What is ahead of a text's end is another text's.
      token = distance > 1 ? mx.where(token.equal(eos), eos, earlier) : earlier;
      mixed = mx.bitwiseXor(mixed, token.multiply(this._factors.at(distance)));
      const own = mx.slice((distance - 1) * heads, distance * heads);
      found.push(mixed.expandDims(-1).remainder(this._rows.at(own)).add(this._starts.at(own)));
    }
    return this.ngram_embedding.forward(mx.concatenate(found, { axis: -1 }).astype("int32")).flatten(-2);
  }
}

/** Odd numbers below 2⁶³ / vocabulary. */
function factorsOf(vocabulary: number, count: number, seed: bigint): BigInt64Array {
  const mask = (1n << 64n) - 1n;
  const gamma = 0x9e3779b97f4a7c15n;
  const bound = ((1n << 63n) - 1n) / BigInt(vocabulary) / 2n;
  return BigInt64Array.from({ length: count }, (_, index) => {
    // SplitMix64. Steele et al. 2014.
    let x = (seed + gamma * BigInt(index + 2)) & mask;
    x = ((x ^ (x >> 30n)) * 0xbf58476d1ce4e5b9n) & mask;
    x = ((x ^ (x >> 27n)) * 0x94d049bb133111ebn) & mask;
    return 2n * ((x ^ (x >> 31n)) % bound) + 1n;
  });
}

function primesFrom(first: number, count: number): number[] {
  const primes: number[] = [];
  for (let x = first; primes.length < count; x++) if (isPrime(x)) primes.push(x);
  return primes;
}

function isPrime(x: number): boolean {
  if (x < 2) return false;
  for (let divisor = 2; divisor * divisor <= x; divisor++) if (x % divisor === 0) return false;
  return true;
}

/** What the table of n-grams adds to the streams, which gate it; and a convolution of that. */
export class NgramLayer extends Module {
  ple_embedding: NgramEmbedding;
  key_proj: Layer;
  value_proj: Layer;
  norm_key: CentredNorm;
  norm_query: CentredNorm;
  norm_conv: CentredNorm;
  conv1d: DilatedConv;

  constructor(
    readonly args: NgramArgs,
    table: number,
  ) {
    super();
    const { hc_count, hidden_size: dims, rms_norm_eps: eps } = args;
    const inputs = args.ple_embed_dim ?? dims;
    const all = hc_count * dims;
    this.ple_embedding = new NgramEmbedding(args, table);
    this.key_proj = new Linear(inputs, all, { bias: false });
    this.value_proj = new Linear(inputs, dims, { bias: false });
    this.norm_key = new CentredNorm(all, eps);
    this.norm_query = new CentredNorm(all, eps);
    this.norm_conv = new CentredNorm(all, eps);
    this.conv1d = new DilatedConv(all, args.ple_conv_kernel_size, args.ngram_size);
  }

  /** streams (B, T, S, D), ids (B, T) → what is added to them. The cache's arrays 2 and 3 are its own. */
  forward(streams: Tensor, ids: Tensor, cache?: ArraysCache): Tensor {
    const { hc_count, hidden_size: dims, ngram_size } = this.args;
    const batch = streams.dim(0);
    const before = cache?.get(3) ?? mx.full([batch, ngram_size - 1], eosOf(this.args)!, ids.dtype);
    const rows = this.ple_embedding.forward(ids, before);
    cache?.put(3, latest(mx.concatenate([before, ids], { axis: 1 }), ngram_size - 1));

    const keys = this.norm_key.forward(this.key_proj.forward(rows).unflatten(-1, [hc_count, dims]));
    const products = keys.multiply(this.norm_query.forward(streams)).sum({ axis: -1, keepdims: true });
    const gates = products.divide(Math.sqrt(dims));
    const softened = gates.sign().multiply(mx.maximum(gates.abs(), 1e-6).sqrt()).sigmoid();
    const gated = softened.multiply(this.value_proj.forward(rows).expandDims(-2));
    const [around, after] = this.conv1d.forward(this.norm_conv.forward(gated).flatten(-2), cache?.get(2) ?? null);
    cache?.put(2, after);
    return gated.add(silu(around).unflatten(-1, [hc_count, dims]));
  }
}

/** The last rows of x (B, T, …). */
const latest = (x: Tensor, count: number): Tensor => mx.contiguous(mx.sliceAxis(x, 1, x.dim(1) - count, x.dim(1)));

/** Each channel's inputs some tokens apart, weighted. */
class DilatedConv extends Module {
  /** (C, K, 1) */
  weight: Tensor;

  constructor(
    channels: number,
    readonly taps: number,
    readonly distance: number,
  ) {
    super();
    this.weight = parameter(mx.zeros([channels, taps, 1]));
  }

  /** x (B, T, C), before: what was ahead of it, zeros where null → (B, T, C), and what is ahead of the next */
  forward(x: Tensor, before: Tensor | null): [y: Tensor, after: Tensor] {
    const [batch, length, channels] = x.shape as [number, number, number];
    const kept = (this.taps - 1) * this.distance;
    const all = mx.concatenate([before ?? mx.zeros([batch, kept, channels], x.dtype), x], { axis: 1 });
    const weights = this.weight.astype("float32").squeeze(-1).T;
    const parts = Array.from({ length: this.taps }, (_, tap) => {
      const first = tap * this.distance;
      return mx
        .sliceAxis(all, 1, first, first + length)
        .astype("float32")
        .multiply(weights.at(tap));
    });
    return [parts.reduce((sum, part) => sum.add(part)).astype(x.dtype), latest(all, kept)];
  }
}

const shard = /^(.*\.ngram_embedding)\.(?:shard_|shards\.)(\d+)\.(\w+)$/;

/** The parts of each table one behind the other. */
export function joinTables(weights: ReadonlyMap<string, Tensor>): Map<string, Tensor> {
  const joined = new Map<string, Tensor>();
  const tables = new Map<string, Tensor[]>();
  for (const [name, weight] of weights) {
    const [, path, index, kind] = shard.exec(name) ?? [];
    if (!path) joined.set(name, weight);
    else {
      const parts = tables.get(`${path}.${kind}`) ?? [];
      parts[Number(index)] = weight;
      tables.set(`${path}.${kind}`, parts);
    }
  }
  for (const [name, parts] of tables) joined.set(name, mx.concatenate(parts));
  // What hashes are made with is no weight.
  for (const name of [...joined.keys()]) if (/\.(layer_multipliers|ngram_heads_\w+)$/.test(name)) joined.delete(name);
  return joined;
}
