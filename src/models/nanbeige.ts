/** Nanbeige: Llama whose layers run several times over, with the last norm between, and a cache for each run. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import { type CacheOptions, Decoder, type ForwardOptions, GatedMLP, type KeyValueCache, throughLayers } from "../nn";
import { checkHeads, denseFields, size } from "./args";
import { decoder } from "./gguf/decoder";
import { u32 } from "./gguf/facts";
import { CausalLM } from "./language-model";
import * as llama from "./llama";

const unsupported = z
  .boolean()
  .default(false)
  .refine((isOn) => !isOn, "is true, but mlxlm has no such layers");

export const Args = z
  .object({
    ...denseFields,
    num_key_value_heads: size,
    mlp_bias: z.boolean().default(false),
    tie_word_embeddings: z.boolean().default(false),
    num_loops: size.default(1),
    /** One for each run after the first, where it was trained with a loss for each: these are the runs then. */
    loop_loss_weights: z.array(z.number()).nullish(),
    skip_loop_final_norm: z.boolean().default(false),
    enable_double_loop_split: unsupported,
    loop_share_kv: unsupported,
    enable_depth_attention: unsupported,
  })
  .superRefine(checkHeads);

type Args = z.infer<typeof Args>;

interface Loops {
  count: number;
  /** Whether the last norm stands between runs too. */
  normed: boolean;
}

class LoopedDecoder extends Decoder {
  constructor(
    parts: ConstructorParameters<typeof Decoder<KeyValueCache>>,
    readonly loops: Loops,
  ) {
    super(...parts);
  }

  override forward(inputs: Tensor, { cache, inputEmbeddings }: ForwardOptions = {}): Tensor {
    const { layers, norm, loops } = this;
    let x = inputEmbeddings ?? this.embed_tokens.forward(inputs);
    for (let run = 0; run < loops.count; run++) {
      const own = cache?.slice(run * layers.length, (run + 1) * layers.length);
      const h = throughLayers(x, layers, own);
      x = loops.normed || run === loops.count - 1 ? h.branch(norm) : h.value;
    }
    return x;
  }
}

export class Model extends CausalLM {
  readonly loops: number;

  constructor(args: Args) {
    const { loop_loss_weights: losses } = args;
    const loops = { count: losses?.length ? losses.length + 1 : args.num_loops, normed: !args.skip_loop_final_norm };
    const { hidden_size: D, intermediate_size, mlp_bias: bias } = args;
    const rotated = { ...args, rope_traditional: false };
    const block = () =>
      new llama.Block(new llama.Attention(rotated), new GatedMLP(D, intermediate_size, { bias }), args);
    super(args, block, { decoder: (...parts) => new LoopedDecoder(parts, loops) });
    this.loops = loops.count;
  }

  /** One for each layer of each run. */
  override makeCache(options?: CacheOptions): KeyValueCache[] {
    return Array.from({ length: this.loops }, () => super.makeCache(options)).flat();
  }
}

export const gguf = decoder("nanbeige", {
  pairsRows: true,
  integers: { num_loops: "num_loops" },
  flags: { skip_loop_final_norm: "skip_loop_final_norm" },
  write(settings) {
    const { loop_loss_weights: weights, num_loops: loops } = settings as unknown as Args;
    return { num_loops: u32(weights?.length ? weights.length + 1 : loops) };
  },
});
