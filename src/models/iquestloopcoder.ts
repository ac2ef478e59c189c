/**
 * IQuest-Coder with a loop: Llama's layers are run twice. In the second round a gate mixes, for each head, attention to the
 * first round's keys and values with attention to the second's own latest ones.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  attendTo,
  type CacheOptions,
  Decoder,
  type ForwardOptions,
  fullAttention,
  GatedMLP,
  joinHeads,
  type KeyValueCache,
  layerCaches,
  type Mask,
  Module,
  parameter,
  projectHeads,
  Residual,
  RotatingKVCache,
  slidingWindow,
} from "../nn";
import type { Rows } from "../nn/cache/rows";
import { checkHeads, denseFields, size } from "./args";
import { CausalLM } from "./language-model";
import * as llama from "./llama";

export const Args = z
  .object({
    ...denseFields,
    head_dim: size,
    num_key_value_heads: size,
    max_position_embeddings: size.default(131_072),
    mlp_bias: z.boolean().default(false),
    rope_theta: z.number().positive().default(500_000),
    tie_word_embeddings: z.boolean().default(false),
    loop_num: z.literal(2).default(2),
    loop_window_size: size.default(64),
  })
  .superRefine(checkHeads);

type Args = z.infer<typeof Args>;

type KeysValues = readonly [keys: Rows, values: Rows];

class Attention extends llama.Attention {
  /** The first round: x (B, T, D) → (B, T, D), and all keys and values, which the second attends to as well. */
  first(x: Tensor, mask: Mask, cache?: KeyValueCache): [out: Tensor, rows: KeysValues] {
    const [q, k, v] = this.#project(x, cache);
    const rows = cache?.update(k, v) ?? ([k, v] as const);
    return [this.o_proj.forward(joinHeads(attendTo(q, ...rows, { scale: this.scale, mask }))), rows];
  }

  /** The second. @param masks of the first round's keys, and of the second's */
  second(x: Tensor, gate: Gate, rows: KeysValues, masks: readonly [Mask, Mask], cache?: KeyValueCache): Tensor {
    const { scale } = this;
    const [q, k, v] = this.#project(x, cache);
    const share = gate.forward(q);
    const before = attendTo(q, ...rows, { scale, mask: masks[0] });
    const own = attendTo(q, ...(cache?.update(k, v) ?? ([k, v] as const)), { scale, mask: masks[1] });
    const mixed = share.multiply(before).add(mx.subtract(1, share).multiply(own));
    return this.o_proj.forward(joinHeads(mixed));
  }

  #project(x: Tensor, cache?: KeyValueCache) {
    return projectHeads(x, [this.q_proj, this.k_proj, this.v_proj], this, cache?.offset);
  }

  /** The gates are of all heads, and not a part of it: it stays whole on every rank. */
  override shard(): void {}
}

class Gate extends Module {
  /** (H, D) */
  weight: Tensor;
  /** (H) */
  bias: Tensor;

  constructor(heads: number, headDim: number) {
    super();
    this.weight = parameter(mx.zeros([heads, headDim]));
    this.bias = parameter(mx.zeros([heads]));
  }

  /** q (B, H, T, D) → (B, H, T, 1) */
  forward(q: Tensor): Tensor {
    return q
      .matmul(this.weight.expandDims(-1))
      .add(this.bias.expandDims([-1, -2]))
      .sigmoid();
  }
}

/** What the second round needs of the first. */
interface SecondRound {
  gate: Gate;
  rows: KeysValues;
  masks: readonly [Mask, Mask];
}

/** Llama's block; the model calls its two rounds in place of `forward`. */
class Block extends llama.Block {
  declare readonly self_attn: Attention;

  /** In the first round; the keys and values go to `keep`. */
  firstRound(x: Residual, mask: Mask, cache: KeyValueCache | undefined, keep: (rows: KeysValues) => void): Residual {
    const [attended, rows] = this.self_attn.first(x.branch(this.input_layernorm), mask, cache);
    keep(rows);
    return this.#feed(x.plus(attended));
  }

  secondRound(x: Residual, { gate, rows, masks }: SecondRound, cache?: KeyValueCache): Residual {
    return this.#feed(x.plus(this.self_attn.second(x.branch(this.input_layernorm), gate, rows, masks, cache)));
  }

  #feed(h: Residual): Residual {
    return h.plus(this.mlp.forward(h.branch(this.post_attention_layernorm)));
  }
}

class GatedDecoder extends Decoder {
  gate_projections: Gate[];

  constructor(args: Args, ...parts: ConstructorParameters<typeof Decoder<KeyValueCache>>) {
    super(...parts);
    const { num_attention_heads: heads, head_dim: headDim } = args;
    this.gate_projections = this.layers.map(() => new Gate(heads, headDim));
  }
}

export class Model extends CausalLM {
  readonly window: number;

  constructor(args: Args) {
    const mlp = () => new GatedMLP(args.hidden_size, args.intermediate_size, { bias: args.mlp_bias });
    super(args, () => new Block(new Attention({ ...args, rope_traditional: false }), mlp(), args), {
      decoder: (...parts) => new GatedDecoder(args, ...parts),
    });
    this.window = args.loop_window_size;
  }

  override hidden(inputs: Tensor, { cache, inputEmbeddings }: ForwardOptions = {}): Tensor {
    const blocks = this.layers as Block[];
    const { gate_projections: gates, embedding, lastNorm } = this.model as GatedDecoder;
    const x = inputEmbeddings ?? embedding.forward(inputs);
    const second = cache?.slice(blocks.length);
    const masks = [fullAttention.make(x, cache?.[0]), slidingWindow(this.window).make(x, second?.[0])] as const;
    const rows: KeysValues[] = [];
    const once = blocks.reduce(
      (h, block, i) => block.firstRound(h, masks[0], cache?.[i], (own) => void rows.push(own)),
      new Residual(x),
    );
    const twice = blocks.reduce(
      (h, block, i) => block.secondRound(h, { gate: gates[i]!, rows: rows[i]!, masks }, second?.[i]),
      once,
    );
    return twice.branch(lastNorm);
  }

  /** Of the first round, and behind them of the second. */
  override makeCache(options?: CacheOptions): KeyValueCache[] {
    return [...layerCaches(this.layers, options), ...this.layers.map(() => new RotatingKVCache(this.window))];
  }
}
