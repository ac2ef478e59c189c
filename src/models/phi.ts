/** Phi 1 and 2: attention and a feed-forward block without a gate side by side on one LayerNorm; a part of each head turns. */
import { z } from "zod";
import {
  type DecoderLayer,
  geluApprox,
  type KeyValueCache,
  LayerNorm,
  type Mask,
  Module,
  NamedAttention,
  NamedMLP,
  type Residual,
} from "../nn";
import { checkHeads, headsOf, ropeFields, ropeOf, size } from "./args";
import { decoder } from "./gguf/decoder";
import { TensorNames } from "./gguf/names";
import { CausalLM } from "./language-model";

export const Args = z
  .object({
    max_position_embeddings: size.default(2048),
    vocab_size: size.default(51_200),
    hidden_size: size.default(2560),
    num_attention_heads: size.default(32),
    num_hidden_layers: size.default(32),
    num_key_value_heads: size.nullish(),
    partial_rotary_factor: z.number().positive().max(1).default(0.4),
    intermediate_size: size.default(10_240),
    layer_norm_eps: z.number().positive().default(1e-5),
    ...ropeFields,
  })
  .superRefine(checkHeads);

type Args = z.infer<typeof Args>;

class Block extends Module implements DecoderLayer {
  self_attn: NamedAttention;
  input_layernorm: LayerNorm;
  mlp: NamedMLP;

  constructor(args: Args) {
    super();
    const { hidden_size: dims, intermediate_size: hidden } = args;
    const sizes = headsOf(args);
    const rope = { ...ropeOf(args), dims: Math.trunc(args.partial_rotary_factor * sizes.headDim) };
    this.self_attn = new NamedAttention({
      ...sizes,
      ...{ dims, rope, bias: true, inputs: ["q_proj", "k_proj", "v_proj"], output: "dense", isWide: true },
    });
    this.input_layernorm = new LayerNorm(dims, args.layer_norm_eps);
    const names = { up: "fc1", down: "fc2" };
    this.mlp = new NamedMLP(dims, hidden, { names, bias: true, activation: geluApprox });
  }

  forward(x: Residual, mask: Mask, cache?: KeyValueCache): Residual {
    const normed = x.branch(this.input_layernorm);
    return x.plus(this.self_attn.forward(normed, mask, cache).add(this.mlp.forward(normed)));
  }
}

export class Model extends CausalLM {
  constructor(args: Args) {
    const { layer_norm_eps: eps } = args;
    super({ ...args, rms_norm_eps: eps, tie_word_embeddings: false }, () => new Block(args), {
      norm: (dims) => new LayerNorm(dims, eps),
      names: { norm: "final_layernorm" },
      headBias: true,
    });
  }
}

const layer = {
  attn_norm: "input_layernorm",
  attn_q: "self_attn.q_proj",
  attn_k: "self_attn.k_proj",
  attn_v: "self_attn.v_proj",
  attn_output: "self_attn.dense",
  ffn_up: "mlp.fc1",
  ffn_down: "mlp.fc2",
};

export const gguf = decoder("phi2", {
  names: new TensorNames(layer, { outer: { output_norm: "model.final_layernorm" } }),
  epsilon: ["attention.layer_norm_epsilon", "layer_norm_eps"],
  turning: ({ headDim, ...settings }) => Math.trunc((settings as unknown as Args).partial_rotary_factor * headDim),
  read: (_, { partial_rotary_factor = 1 }) => ({ partial_rotary_factor }),
});
