/** Nemotron 3 and 4: Llama with LayerNorm whose weight is its distance from one, squared ReLU, and a part of heads turned. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { LayerNorm, NamedMLP, squaredRelu } from "../nn";
import { attentionFields, checkHeads, headsOf, ropeOf, size } from "./args";
import { shifted } from "./gguf/changes";
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
    hidden_act: z.literal("relu2").default("relu2"),
    norm_eps: z.number().positive(),
    num_key_value_heads: size,
    mlp_bias: z.boolean().default(false),
    partial_rotary_factor: z.number().positive().max(1).default(0.5),
    tie_word_embeddings: z.boolean().default(false),
  })
  .superRefine(checkHeads);

type Args = z.infer<typeof Args>;

/** LayerNorm with the weight stored as its distance from one. */
class ZeroCenteredLayerNorm extends LayerNorm {
  override forward(x: Tensor): Tensor {
    return mx.fast.layerNorm(x, mx.add(1, this.weight!), this.bias!, this.eps);
  }
}

export class Model extends CausalLM {
  constructor(args: Args) {
    const { hidden_size: D, intermediate_size: hidden, norm_eps: eps, mlp_bias: bias } = args;
    const sizes = { ...args, rms_norm_eps: eps };
    const norm = (dims: number) => new ZeroCenteredLayerNorm(dims, eps);
    const rope = { ...ropeOf(args), dims: Math.trunc(headsOf(args).headDim * args.partial_rotary_factor) };
    const names = { up: "up_proj", down: "down_proj" };
    const mlp = () => new NamedMLP(D, hidden, { names, bias, activation: squaredRelu });
    super(sizes, () => new llama.Block(new llama.Attention(args, { rope }), mlp(), sizes, undefined, norm), { norm });
  }
}

/** Files have the weights themselves. */
const whole = shifted(1);

export const gguf = decoder("nemotron", {
  names: new TensorNames(plainLayer),
  changes: () => ({
    "input_layernorm.weight": whole,
    "post_attention_layernorm.weight": whole,
    "model.norm.weight": whole,
  }),
  epsilon: ["attention.layer_norm_epsilon", "norm_eps"],
  turning: ({ headDim, partial_rotary_factor: share }) => Math.trunc(headDim * (share as number)),
  only: { tie_word_embeddings: false },
  read: (_, { partial_rotary_factor = 1 }) => ({ partial_rotary_factor }),
});
