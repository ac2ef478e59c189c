/** GPT-2: LayerNorm, one projection for queries, keys and values, a feed-forward block without a gate, learned positions. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import {
  type DecoderLayer,
  geluApprox,
  type KeyValueCache,
  LayerNorm,
  type Mask,
  Module,
  NamedAttention,
  type NamedAttentionOptions,
  NamedMLP,
  type NamedMLPOptions,
  type Residual,
} from "../nn";
import { size } from "./args";
import { learnedPositions } from "./gguf/gpt2";
import { NamedLM } from "./named-lm";

export const Args = z
  .object({
    n_embd: size,
    n_head: size,
    n_layer: size,
    n_positions: size,
    layer_norm_epsilon: z.number().positive(),
    vocab_size: size,
    n_inner: size.nullish(),
    tie_word_embeddings: z.boolean().default(true),
  })
  .superRefine(({ n_embd: dims, n_head: heads }, context) => {
    if (dims % heads === 0) return;
    context.addIssue({ code: "custom", path: ["n_head"], message: `is ${heads}, but must divide "n_embd" (${dims})` });
  });

/** x + attention(norm(x)), then h + mlp(norm(h)). */
export class Block extends Module implements DecoderLayer {
  attn: NamedAttention;
  mlp: NamedMLP;
  ln_1: LayerNorm;
  ln_2: LayerNorm;

  constructor(
    attention: Omit<NamedAttentionOptions, "inputs" | "output">,
    { hidden, eps, ...mlp }: Omit<NamedMLPOptions, "names"> & { hidden: number; eps: number },
  ) {
    super();
    const { dims } = attention;
    this.attn = new NamedAttention({ ...attention, inputs: "c_attn", output: "c_proj" });
    this.mlp = new NamedMLP(dims, hidden, { ...mlp, names: { up: "c_fc", down: "c_proj" } });
    this.ln_1 = new LayerNorm(dims, eps);
    this.ln_2 = new LayerNorm(dims, eps);
  }

  forward(x: Residual, mask: Mask, cache?: KeyValueCache): Residual {
    const h = x.plus(this.attn.forward(x.branch(this.ln_1), mask, cache));
    return h.plus(this.mlp.forward(h.branch(this.ln_2)));
  }
}

/** The names of the trunk's parts. */
export const names = { embedding: "wte", layers: "h", norm: "ln_f", head: ".lm_head" } as const;

export class Model extends NamedLM {
  constructor(args: z.infer<typeof Args>) {
    const { n_embd: dims, n_head: heads, layer_norm_epsilon: eps, n_inner } = args;
    const sizes = { dims, heads, kvHeads: heads, headDim: dims / heads };
    const mlp = { hidden: n_inner ?? 4 * dims, eps, bias: true, activation: geluApprox };
    super(
      {
        dims,
        vocab: args.vocab_size,
        layers: args.n_layer,
        tied: args.tie_word_embeddings,
        positions: args.n_positions,
      },
      { ...names, trunk: "model" },
      () => new Block({ ...sizes, rope: null, bias: true }, mlp),
      new LayerNorm(dims, eps),
    );
  }

  /** Turns the weights of checkpoints, which are input by output, and drops masks. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const isOwn = [...weights.keys()].some((name) => name.startsWith("model."));
    if (isOwn) return super.sanitize(weights);
    const sanitized = new Map<string, Tensor>();
    for (const [name, weight] of super.sanitize(weights)) {
      if (/\.attn\.(masked_)?bias$/.test(name)) continue;
      const own = name.startsWith("lm_head.") ? name : `model.${name.replace(/^transformer\./, "")}`;
      sanitized.set(own, /\.c_(attn|proj|fc)\.weight$/.test(own) ? weight.T : weight);
    }
    return sanitized;
  }
}

export const gguf = learnedPositions("gpt2", "model");
