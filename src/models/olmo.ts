/** OLMo 1 as transformers has it: Llama with LayerNorm without weights, and in some sizes bounded queries, keys and values. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { attention, GatedMLP, joinHeads, type KeyValueCache, LayerNorm, type Mask, project, splitHeads } from "../nn";
import { attentionFields, checkHeads, size } from "./args";
import { type AwqFacts, downGroup } from "./awq-facts";
import { decoder } from "./gguf/decoder";
import { plainLayer, TensorNames } from "./gguf/names";
import { CausalLM } from "./language-model";
import * as llama from "./llama";

export const Args = z
  .object({
    ...attentionFields,
    hidden_size: size,
    num_hidden_layers: size,
    intermediate_size: size,
    vocab_size: size,
    tie_word_embeddings: z.boolean().default(false),
    clip_qkv: z.number().positive().nullish(),
    /** Checkpoints don't say it, GGUF files do. */
    layer_norm_eps: z.number().positive().default(1e-5),
  })
  .superRefine(checkHeads);

type Args = z.infer<typeof Args>;

class Attention extends llama.Attention {
  readonly clip: number | null;

  constructor({ clip_qkv, ...args }: Args) {
    super(args);
    this.clip = clip_qkv ?? null;
  }

  protected override attend(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const { clip } = this;
    if (clip === null) return super.attend(x, mask, cache);
    const projected = project(x, [this.q_proj, this.k_proj, this.v_proj]);
    const [queries, keys, values] = projected.map((part) => mx.clip(part, -clip, clip)) as [Tensor, Tensor, Tensor];
    const turned = (part: Tensor, heads: number) => this.rope!.forward(splitHeads(part, heads), cache?.offset);
    const [q, k] = [turned(queries, this.heads), turned(keys, this.kvHeads)];
    return joinHeads(attention(q, k, splitHeads(values, this.kvHeads), { scale: this.scale, mask, cache }));
  }
}

/** Without weights, so that it fits any width. */
export const plainNorm = (dims = 0, eps = 1e-5) => new LayerNorm(dims, eps, { affine: false });

export class Model extends CausalLM {
  constructor(args: Args) {
    const named = { ...args, rms_norm_eps: args.layer_norm_eps };
    const mlp = () => new GatedMLP(args.hidden_size, args.intermediate_size);
    super(named, () => new llama.Block(new Attention(args), mlp(), named, undefined, plainNorm), { norm: plainNorm });
  }
}

/** No norm has weights that could take factors. */
export const awq: AwqFacts = { noClip: ["q_proj", "k_proj"], groups: [downGroup("mlp")] };

const { attn_norm: _, ffn_norm: __, attn_q_norm: ___, attn_k_norm: ____, ...unnormed } = plainLayer;

export const gguf = decoder("olmo", {
  names: new TensorNames(unnormed),
  pairsRows: true,
  epsilon: ["attention.layer_norm_epsilon", "layer_norm_eps"],
  floats: { "attention.clamp_kqv": "clip_qkv" },
  only: { attention_bias: false, rope_traditional: false },
});
