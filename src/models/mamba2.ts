/** Mamba-2: no attention; each layer is a short convolution and a selective state space, gated. Also Codestral Mamba. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  ArraysCache,
  CausalConv1d,
  type DecoderLayer,
  Embedding,
  type ForwardOptions,
  type Layer,
  Linear,
  layerCaches,
  type Mask,
  Module,
  parameter,
  type Residual,
  RMSNorm,
  recurrent,
  selectiveStateSpace,
  silu,
  swiglu,
  throughLayers,
} from "../nn";
import { size } from "./args";
import type { LanguageModel } from "./language-model";

export const Args = z
  .object({
    num_heads: size,
    head_dim: size,
    vocab_size: size,
    hidden_size: size,
    state_size: size,
    num_hidden_layers: size,
    layer_norm_epsilon: z.number().positive(),
    conv_kernel: size,
    n_groups: size,
    use_bias: z.boolean(),
    use_conv_bias: z.boolean(),
    tie_word_embeddings: z.boolean(),
    time_step_limit: z.tuple([z.number(), z.number()]),
    ssm_state_size: size.nullish(),
  })
  .superRefine(({ num_heads, n_groups }, context) => {
    if (num_heads % n_groups === 0) return;
    const message = `is ${n_groups}, but "num_heads" (${num_heads}) must be a multiple of it`;
    context.addIssue({ code: "custom", path: ["n_groups"], message });
  });

type Args = z.infer<typeof Args>;

/** RMSNorm of gated values. */
class GatedRMSNorm extends RMSNorm {
  gated(x: Tensor, gate: Tensor): Tensor {
    return this.forward(swiglu(gate, x));
  }
}

class Mixer extends Module {
  conv1d: CausalConv1d;
  in_proj: Layer;
  dt_bias: Tensor;
  A_log: Tensor;
  D: Tensor;
  norm: GatedRMSNorm;
  out_proj: Layer;
  readonly heads: number;
  readonly headDim: number;
  readonly groups: number;
  readonly stateSize: number;
  readonly limits: readonly [number, number];

  constructor(args: Args) {
    super();
    const { num_heads: heads, head_dim: headDim, n_groups: groups, hidden_size, use_bias: bias } = args;
    const stateSize = args.ssm_state_size ?? args.state_size;
    const inner = heads * headDim;
    const convolved = inner + 2 * groups * stateSize;
    this.conv1d = new CausalConv1d(convolved, args.conv_kernel, { bias: args.use_conv_bias });
    this.in_proj = new Linear(hidden_size, inner + convolved + heads, { bias });
    this.dt_bias = parameter(mx.ones([heads]));
    this.A_log = parameter(mx.scope(() => mx.arange(1, heads + 1, 1, { dtype: "float32" }).log()));
    this.D = parameter(mx.ones([heads]));
    this.norm = new GatedRMSNorm(inner, args.layer_norm_epsilon);
    this.out_proj = new Linear(inner, hidden_size, { bias });
    this.heads = heads;
    this.headDim = headDim;
    this.groups = groups;
    this.stateSize = stateSize;
    this.limits = args.time_step_limit;
  }

  /** x (B, T, D), own (B, T): which tokens are a row's own → (B, T, D) */
  forward(x: Tensor, own: Tensor | null, cache?: ArraysCache): Tensor {
    const [batch, length] = x.shape as [number, number, number];
    const inner = this.heads * this.headDim;
    const [gate, entering, dt] = this.in_proj.forward(x).split([inner, inner + this.conv1d.channels], -1) as Triple;

    const [convolved, recent] = this.conv1d.forward(entering, cache?.get(0) ?? null, cache?.lengthsWithin(length));
    const [hidden, B, C] = silu(convolved).split([inner, inner + this.groups * this.stateSize], -1) as Triple;
    const grouped = (part: Tensor) => part.reshape(batch, length, this.groups, this.stateSize);
    const [y, state] = selectiveStateSpace(
      { x: hidden.reshape(batch, length, this.heads, this.headDim), B: grouped(B), C: grouped(C), dt },
      this,
      cache?.get(1) ?? null,
      own,
    );
    cache?.put(0, recent);
    cache?.put(1, state);
    cache?.advance(length);
    return this.out_proj.forward(this.norm.gated(y.reshape(batch, length, inner), gate));
  }
}

type Triple = [Tensor, Tensor, Tensor];

class Block extends Module implements DecoderLayer<ArraysCache> {
  mixer: Mixer;
  norm: RMSNorm;
  readonly mask = recurrent;

  constructor(args: Args) {
    super();
    this.mixer = new Mixer(args);
    this.norm = new RMSNorm(args.hidden_size);
  }

  forward(x: Residual, own: Mask, cache?: ArraysCache): Residual {
    return x.plus(this.mixer.forward(x.branch(this.norm), own as Tensor | null, cache));
  }

  makeCache(): ArraysCache {
    return new ArraysCache(2);
  }
}

class Backbone extends Module {
  embeddings: Embedding;
  layers: Block[];
  norm_f: RMSNorm;

  constructor(args: Args) {
    super();
    this.embeddings = new Embedding(args.vocab_size, args.hidden_size);
    this.layers = Array.from({ length: args.num_hidden_layers }, () => new Block(args));
    this.norm_f = new RMSNorm(args.hidden_size, args.layer_norm_epsilon);
  }
}

export class Model extends Module implements LanguageModel {
  backbone: Backbone;
  lm_head?: Layer;

  constructor(args: Args) {
    super();
    this.backbone = new Backbone(args);
    if (!args.tie_word_embeddings) this.lm_head = new Linear(args.hidden_size, args.vocab_size, { bias: false });
  }

  get layers(): Block[] {
    return this.backbone.layers;
  }

  get vocabSize(): number {
    return this.backbone.embeddings.weight.dim(0);
  }

  forward(inputs: Tensor, { cache, inputEmbeddings }: ForwardOptions<ArraysCache> = {}): Tensor {
    const { embeddings, layers, norm_f } = this.backbone;
    const out = throughLayers(inputEmbeddings ?? embeddings.forward(inputs), layers, cache).branch(norm_f);
    return this.lm_head ? this.lm_head.forward(out) : embeddings.asLinear(out);
  }

  /** Convolutions as (C, K, 1): other programs save them as (C, 1, K). */
  sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const entries = [...weights].map(([name, weight]): [string, Tensor] => {
      const turned = name.endsWith("conv1d.weight") && weight.dim(-1) !== 1;
      return [name, turned ? mx.moveaxis(weight, 2, 1) : weight];
    });
    return new Map(entries);
  }

  makeCache(): ArraysCache[] {
    return layerCaches(this.layers);
  }
}
