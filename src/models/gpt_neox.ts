/** GPT-NeoX and Pythia: attention and a feed-forward block without a gate side by side, a norm each; a part of heads turns. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import {
  type DecoderLayer,
  gelu,
  geluApprox,
  type KeyValueCache,
  LayerNorm,
  type Mask,
  Module,
  NamedAttention,
  NamedMLP,
  type Residual,
} from "../nn";
import { checkHeads, headsOf, size } from "./args";
import { spreadRows } from "./gguf/changes";
import { decoder } from "./gguf/decoder";
import { TensorNames } from "./gguf/names";
import { NamedLM } from "./named-lm";

export const Args = z
  .object({
    max_position_embeddings: size,
    hidden_size: size,
    num_attention_heads: size,
    num_hidden_layers: size,
    layer_norm_eps: z.number().positive(),
    vocab_size: size,
    rotary_emb_base: z.number().positive(),
    rotary_pct: z.number().positive().max(1),
    use_parallel_residual: z.boolean().default(true),
    intermediate_size: size.nullish(),
    hidden_act: z.string().nullish(),
  })
  .superRefine(checkHeads);

type Args = z.infer<typeof Args>;

class Block extends Module implements DecoderLayer {
  attention: NamedAttention;
  mlp: NamedMLP;
  input_layernorm: LayerNorm;
  post_attention_layernorm: LayerNorm;

  constructor(readonly args: Args) {
    super();
    const { hidden_size: dims, layer_norm_eps: eps } = args;
    const sizes = headsOf(args);
    const rope = { dims: Math.trunc(sizes.headDim * args.rotary_pct), base: args.rotary_emb_base };
    this.attention = new NamedAttention({
      ...sizes,
      ...{ dims, rope, bias: true, inputs: "query_key_value", order: "by group", output: "dense" },
    });
    const names = { up: "dense_h_to_4h", down: "dense_4h_to_h" };
    const hidden = args.intermediate_size ?? 4 * dims;
    // mlx-lm has tanh's for both.
    const activation = args.hidden_act === "gelu" ? gelu : geluApprox;
    this.mlp = new NamedMLP(dims, hidden, { names, bias: true, activation });
    this.input_layernorm = new LayerNorm(dims, eps);
    this.post_attention_layernorm = new LayerNorm(dims, eps);
  }

  forward(x: Residual, mask: Mask, cache?: KeyValueCache): Residual {
    const attended = this.attention.forward(x.branch(this.input_layernorm), mask, cache);
    if (!this.args.use_parallel_residual) {
      const h = x.plus(attended);
      return h.plus(this.mlp.forward(h.branch(this.post_attention_layernorm)));
    }
    return x.plus(attended.add(this.mlp.forward(x.branch(this.post_attention_layernorm))));
  }
}

export class Model extends NamedLM {
  constructor(args: Args) {
    const { hidden_size: dims, vocab_size: vocab, num_hidden_layers: layers, layer_norm_eps: eps } = args;
    super(
      { dims, vocab, layers, tied: false },
      { trunk: "model", embedding: "embed_in", layers: "h", norm: "final_layer_norm", head: "embed_out" },
      () => new Block(args),
      new LayerNorm(dims, eps),
    );
  }

  /** Gives the trunk's parts their names here, and drops masks. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const own = [...super.sanitize(weights)].filter(([name]) => !/\.attention\.(masked_)?bias$/.test(name));
    const named = (name: string) =>
      (name.startsWith("model.") ? name : `model.${name}`)
        .replace(".gpt_neox.layers.", ".h.")
        .replace(".gpt_neox.", ".");
    return new Map(own.map(([name, weight]) => [named(name), weight]));
  }
}

/** Queries, keys and values stand head by head in checkpoints, and one after the other in files. */
const byKind = ({ num_attention_heads: heads }: Args) => spreadRows({ groups: heads, perGroup: 3 });

export const gguf = decoder("gptneox", {
  names: new TensorNames(
    {
      attn_norm: "input_layernorm",
      attn_qkv: "attention.query_key_value",
      attn_output: "attention.dense",
      ffn_norm: "post_attention_layernorm",
      ffn_up: "mlp.dense_h_to_4h",
      ffn_down: "mlp.dense_4h_to_h",
    },
    {
      layers: "model.h",
      outer: { token_embd: "model.embed_in", output_norm: "model.final_layer_norm", output: "model.embed_out" },
    },
  ),
  changes: (config) => ({ "attention.query_key_value": byKind(config as Args) }),
  epsilon: ["attention.layer_norm_epsilon", "layer_norm_eps"],
  flags: { use_parallel_residual: "use_parallel_residual" },
  turning: ({ headDim, rotary_pct: share }) => Math.trunc(headDim * (share as number)),
  common(config) {
    const { num_attention_heads: heads, hidden_size: dims, intermediate_size: hidden, ...args } = config as Args;
    return { num_key_value_heads: heads, intermediate_size: hidden ?? 4 * dims, rope_theta: args.rotary_emb_base };
  },
  read: (_, { rope_theta: rotary_emb_base, partial_rotary_factor: rotary_pct = 1 }) => ({
    rotary_emb_base,
    rotary_pct,
  }),
});
