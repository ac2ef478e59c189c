/** Mamba: no attention; each layer is a short convolution and a selective scan, gated. Also Falcon Mamba. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  ArraysCache,
  type DecoderLayer,
  MambaMixer,
  type Mask,
  Module,
  type Residual,
  RMSNorm,
  recurrent,
  type Selection,
} from "../nn";
import { size } from "./args";
import { blockAwq } from "./awq-facts";
import { BackboneLM } from "./backbone";
import * as stateSpace from "./gguf/state-space";

/** Names of the first implementation, by those of transformers. */
const oldNames = {
  hidden_size: ["d_model"],
  intermediate_size: ["d_inner"],
  state_size: ["d_state"],
  num_hidden_layers: ["n_layer", "n_layers"],
  conv_kernel: ["d_conv"],
  use_bias: ["bias"],
  use_conv_bias: ["conv_bias"],
} as const;

const Fields = z.object({
  model_type: z.string(),
  vocab_size: size,
  hidden_size: size,
  intermediate_size: size,
  state_size: size,
  num_hidden_layers: size,
  conv_kernel: size,
  use_bias: z.boolean(),
  use_conv_bias: z.boolean(),
  time_step_rank: z.union([size, z.literal("auto")]),
  tie_word_embeddings: z.boolean().default(true),
  layer_norm_epsilon: z.number().positive().default(1e-5),
  use_bcdt_rms: z.boolean().default(false),
  mixer_rms_eps: z.number().positive().default(1e-6),
});

export const Args = z
  .record(z.string(), z.unknown())
  .transform((config) => {
    const renamed: Record<string, unknown> = { ...config };
    for (const [name, olds] of Object.entries(oldNames)) {
      const old = olds.find((one) => one in config);
      if (!(name in config) && old) renamed[name] = config[old];
    }
    return renamed;
  })
  .pipe(Fields);

type Args = z.infer<typeof Args>;

class Mixer extends MambaMixer {
  /** Of norms without weights on what selects; null for none. */
  readonly eps: number | null;

  constructor(args: Args) {
    super({
      dims: args.hidden_size,
      channels: args.intermediate_size,
      stateSize: args.state_size,
      kernelSize: args.conv_kernel,
      stepRank: args.time_step_rank === "auto" ? Math.ceil(args.hidden_size / 16) : args.time_step_rank,
      bias: args.use_bias,
      convBias: args.use_conv_bias,
    });
    this.eps = args.use_bcdt_rms || args.model_type === "falcon_mamba" ? args.mixer_rms_eps : null;
  }

  protected override normalized(selection: Selection): Selection {
    const { eps } = this;
    return eps === null ? selection : (selection.map((x) => mx.fast.rmsNorm(x, null, eps)) as Selection);
  }
}

class Block extends Module implements DecoderLayer<ArraysCache> {
  mixer: Mixer;
  norm: RMSNorm;
  readonly mask = recurrent;

  constructor(args: Args) {
    super();
    this.mixer = new Mixer(args);
    this.norm = new RMSNorm(args.hidden_size, args.layer_norm_epsilon);
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

export const gguf = stateSpace.mamba();

export const awq = blockAwq({ attention: "mixer", attentionNorm: "norm" });
