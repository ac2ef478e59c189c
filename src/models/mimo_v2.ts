/** MiMo V2.5 and V2.6: MiMo V2 Flash in a checkpoint that also sees and hears, with queries, keys and values in one matrix. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { needShape } from "../nn";
import { blockAwq } from "./awq-facts";
import * as mimo from "./mimo_v2_flash";
import { NestedLM, nestedArgs } from "./nested";

/** What its configuration may leave out. */
const usual = {
  add_swa_attention_sink_bias: true,
  add_full_attention_sink_bias: false,
  attention_value_scale: 707 / 1000,
  partial_rotary_factor: 0.334,
  n_group: 1,
  topk_group: 1,
  norm_topk_prob: true,
  topk_method: "noaux_tc",
  scoring_func: "sigmoid",
};

const TextArgs = z
  .record(z.string(), z.unknown())
  .transform((config): Record<string, unknown> => ({ ...usual, ...config }))
  .pipe(mimo.Args);

export const Args = nestedArgs(TextArgs);

type Args = z.infer<typeof TextArgs>;

class TextModel extends mimo.Model {
  readonly #args: Args;

  constructor(args: Args) {
    super(args);
    this.#args = args;
  }

  /** Takes the joint matrix of queries, keys and values apart. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const sanitized = super.sanitize(weights);
    for (const layer of this.layers.keys()) {
      const path = `model.layers.${layer}.self_attn`;
      const joint = sanitized.get(`${path}.qkv_proj.weight`);
      if (!joint) continue;
      const [q, k, v] = rowsOf(this.#args, layer);
      needShape(`${path}.qkv_proj.weight`, joint, [q + k + v, this.#args.hidden_size]);
      sanitized.delete(`${path}.qkv_proj.weight`);
      const parts = joint.split([q, q + k], 0).map((part) => mx.contiguous(part));
      for (const [i, name] of ["q_proj", "k_proj", "v_proj"].entries()) {
        sanitized.set(`${path}.${name}.weight`, parts[i]!);
      }
    }
    return sanitized;
  }
}

/** How many outputs of a layer's joint matrix are queries, keys and values. */
function rowsOf(args: Args, layer: number): [q: number, k: number, v: number] {
  const prefix = args.hybrid_layer_pattern[layer] === 1 ? "swa_" : "";
  const [heads, kvHeads] = [args[`${prefix}num_attention_heads`], args[`${prefix}num_key_value_heads`]];
  const headDim = args[`${prefix}head_dim`];
  return [heads * headDim, kvHeads * headDim, kvHeads * args[`${prefix}v_head_dim`]];
}

const otherParts = /^(visual|vision_tower|audio_encoder|speech_embeddings)\./;

export class Model extends NestedLM {
  constructor(args: Args) {
    super(new TextModel(args));
  }

  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    return super.sanitize(new Map([...weights].filter(([name]) => !otherParts.test(name))));
  }
}

export const { keepsDtype } = mimo;

export const awq = blockAwq({ inner: "language_model" });

export const gguf = mimo.ggufFacts("language_model.");
