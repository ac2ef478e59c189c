/** Mamba-2: no attention; each layer is a short convolution and a selective state space, gated. Also Codestral Mamba. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import {
  ArraysCache,
  type DecoderLayer,
  GatedRMSNorm,
  Mamba2Mixer,
  type Mask,
  Module,
  type Residual,
  RMSNorm,
  recurrent,
} from "../nn";
import { size, stepLimits } from "./args";
import { blockAwq } from "./awq-facts";
import { BackboneLM } from "./backbone";
import * as stateSpace from "./gguf/state-space";

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
    time_step_limit: stepLimits,
    ssm_state_size: size.nullish(),
  })
  .superRefine(({ num_heads, n_groups }, context) => {
    if (num_heads % n_groups === 0) return;
    const message = `is ${n_groups}, but "num_heads" (${num_heads}) must be a multiple of it`;
    context.addIssue({ code: "custom", path: ["n_groups"], message });
  });

type Args = z.infer<typeof Args>;

const mixer = (args: Args) =>
  new Mamba2Mixer(
    {
      dims: args.hidden_size,
      heads: args.num_heads,
      headDim: args.head_dim,
      groups: args.n_groups,
      stateSize: args.ssm_state_size ?? args.state_size,
      kernelSize: args.conv_kernel,
    },
    {
      bias: args.use_bias,
      convBias: args.use_conv_bias,
      limits: args.time_step_limit,
      norm: new GatedRMSNorm(args.num_heads * args.head_dim, args.layer_norm_epsilon),
    },
  );

class Block extends Module implements DecoderLayer<ArraysCache> {
  mixer: Mamba2Mixer;
  norm: RMSNorm;
  readonly mask = recurrent;

  constructor(args: Args) {
    super();
    this.mixer = mixer(args);
    this.norm = new RMSNorm(args.hidden_size);
  }

  forward(x: Residual, own: Mask, cache?: ArraysCache): Residual {
    return x.plus(this.mixer.forward(x.branch(this.norm), own as Tensor | null, cache));
  }

  makeCache(): ArraysCache {
    return new ArraysCache(2);
  }
}

export class Model extends BackboneLM<ArraysCache> {
  constructor(args: Args) {
    const blocks = () => Array.from({ length: args.num_hidden_layers }, () => new Block(args));
    super(args, blocks, args.layer_norm_epsilon);
  }
}

export const gguf = stateSpace.mamba2();

export const awq = blockAwq({ attention: "mixer", attentionNorm: "norm" });
