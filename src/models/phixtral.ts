/** Phixtral: copies of Phi 2 as the experts of one model, under the names that Phi 2 had first. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import {
  type CacheOptions,
  type DecoderLayer,
  Embedding,
  type ForwardOptions,
  geluApprox,
  type KeyValueCache,
  type Layer,
  LayerNorm,
  Linear,
  layerCaches,
  type Mask,
  Module,
  mixExperts,
  NamedAttention,
  type Residual,
  SwitchMLP,
  softmaxOfHighest,
  stackExperts,
  throughLayers,
} from "../nn";
import { checkExperts, size } from "./args";
import type { LanguageModel } from "./language-model";

/** Fields have the names of published configurations; mlx-lm's own come first. */
export const Args = z
  .object({
    num_vocab: size.nullish(),
    vocab_size: size.default(51_200),
    model_dim: size.nullish(),
    n_embd: size.default(2560),
    num_heads: size.nullish(),
    n_head: size.default(32),
    num_layers: size.nullish(),
    n_layer: size.default(32),
    n_inner: size.nullish(),
    rotary_dim: size.default(32),
    layer_norm_epsilon: z.number().positive().default(1e-5),
    num_experts_per_tok: size.default(2),
    num_local_experts: size.default(4),
  })
  .transform(({ num_vocab, model_dim, num_heads, num_layers, ...args }) => ({
    ...args,
    vocab_size: num_vocab ?? args.vocab_size,
    n_embd: model_dim ?? args.n_embd,
    n_head: num_heads ?? args.n_head,
    n_layer: num_layers ?? args.n_layer,
  }))
  .superRefine(checkExperts("num_experts_per_tok", "num_local_experts"))
  .superRefine(({ n_embd: dims, n_head: heads, rotary_dim: turning }, context) => {
    const problem = (field: string, message: string) => context.addIssue({ code: "custom", path: [field], message });
    if (dims % heads !== 0) problem("n_head", `is ${heads}, but must divide "n_embd" (${dims})`);
    else if (turning > dims / heads) problem("rotary_dim", `is ${turning}, but a head has ${dims / heads} features`);
  });

type Args = z.infer<typeof Args>;

class Experts extends Module {
  switch_mlp: SwitchMLP;
  gate: Layer;
  readonly used: number;

  constructor({ n_embd: dims, n_inner, num_local_experts: all, num_experts_per_tok }: Args) {
    super();
    this.switch_mlp = new SwitchMLP(dims, n_inner ?? 4 * dims, all, geluApprox, { bias: true });
    this.gate = new Linear(dims, all, { bias: false });
    this.used = num_experts_per_tok;
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor): Tensor {
    return mixExperts(x, this.switch_mlp, softmaxOfHighest(this.gate.forward(x), this.used));
  }
}

/** x + attention(norm(x)) + experts(norm(x)) */
class Block extends Module implements DecoderLayer {
  mixer: NamedAttention;
  ln: LayerNorm;
  moe: Experts;

  constructor(args: Args) {
    super();
    const { n_embd: dims, n_head: heads } = args;
    const sizes = { dims, heads, kvHeads: heads, headDim: dims / heads };
    const rope = { dims: args.rotary_dim, base: 10_000 };
    this.mixer = new NamedAttention({ ...sizes, rope, bias: true, inputs: "Wqkv", output: "out_proj", isWide: true });
    this.ln = new LayerNorm(dims, args.layer_norm_epsilon);
    this.moe = new Experts(args);
  }

  forward(x: Residual, mask: Mask, cache?: KeyValueCache): Residual {
    const normed = x.branch(this.ln);
    return x.plus(this.mixer.forward(normed, mask, cache).add(this.moe.forward(normed)));
  }
}

class Embd extends Module {
  wte: Embedding;

  constructor({ vocab_size, n_embd }: Args) {
    super();
    this.wte = new Embedding(vocab_size, n_embd);
  }
}

class Trunk extends Module {
  embd: Embd;
  h: Block[];

  constructor(args: Args) {
    super();
    this.embd = new Embd(args);
    this.h = Array.from({ length: args.n_layer }, () => new Block(args));
  }
}

class Head extends Module {
  ln: LayerNorm;
  linear: Layer;

  constructor({ n_embd: dims, vocab_size, layer_norm_epsilon }: Args) {
    super();
    this.ln = new LayerNorm(dims, layer_norm_epsilon);
    this.linear = new Linear(dims, vocab_size);
  }
}

export class Model extends Module implements LanguageModel {
  transformer: Trunk;
  lm_head: Head;

  constructor(readonly args: Args) {
    super();
    this.transformer = new Trunk(args);
    this.lm_head = new Head(args);
  }

  get layers(): Block[] {
    return this.transformer.h;
  }

  get vocabSize(): number {
    return this.transformer.embd.wte.weight.dim(0);
  }

  forward(inputs: Tensor, { cache, inputEmbeddings }: ForwardOptions<KeyValueCache> = {}): Tensor {
    const x = inputEmbeddings ?? this.transformer.embd.wte.forward(inputs);
    return this.lm_head.linear.forward(throughLayers(x, this.layers, cache).branch(this.lm_head.ln));
  }

  /** Stacks the experts, and drops frequencies that some checkpoints have. */
  sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const sanitized = new Map([...weights].filter(([name]) => !name.endsWith("rotary_emb.inv_freq")));
    for (const index of this.layers.keys()) {
      const moe = `transformer.h.${index}.moe`;
      const names = { fc1: "fc1", fc2: "fc2" };
      stackExperts(sanitized, {
        count: this.args.num_local_experts,
        from: `${moe}.mlp`,
        to: `${moe}.switch_mlp`,
        names,
      });
    }
    return sanitized;
  }

  makeCache(options?: CacheOptions): KeyValueCache[] {
    return layerCaches(this.layers, options);
  }
}
