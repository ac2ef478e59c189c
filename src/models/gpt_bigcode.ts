/** StarCoder and SantaCoder: GPT-2 whose heads share one head of keys and values. */
import { z } from "zod";
import { LayerNorm } from "../nn";
import { geluOf, size } from "./args";
import { learnedPositions } from "./gguf/gpt2";
import { Block, names } from "./gpt2";
import { NamedLM } from "./named-lm";

export const Args = z
  .object({
    n_embd: size,
    n_layer: size,
    n_inner: size.nullish(),
    n_head: size,
    n_positions: size,
    layer_norm_epsilon: z.number().positive(),
    vocab_size: size,
    multi_query: z.boolean().default(true),
    attention_bias: z.boolean().default(true),
    mlp_bias: z.boolean().default(true),
    tie_word_embeddings: z.boolean().default(true),
    activation_function: z.string().nullish(),
  })
  .superRefine(({ n_embd: dims, n_head: heads }, context) => {
    if (dims % heads === 0) return;
    context.addIssue({ code: "custom", path: ["n_head"], message: `is ${heads}, but must divide "n_embd" (${dims})` });
  });

export class Model extends NamedLM {
  constructor(args: z.infer<typeof Args>) {
    const { n_embd: dims, n_head: heads, layer_norm_epsilon: eps, n_inner } = args;
    const attention = {
      ...{ dims, heads, kvHeads: args.multi_query ? 1 : heads, headDim: dims / heads },
      ...{ rope: null, bias: args.attention_bias },
    };
    const mlp = { hidden: n_inner ?? 4 * dims, eps, bias: args.mlp_bias, activation: geluOf(args.activation_function) };
    const { vocab_size: vocab, n_layer: layers, tie_word_embeddings: tied, n_positions: positions } = args;
    super(
      { dims, vocab, layers, tied, positions },
      { ...names, trunk: "transformer" },
      () => new Block(attention, mlp),
      new LayerNorm(dims, eps),
    );
  }
}

export const gguf = learnedPositions("starcoder", "transformer");
