/** Llama-Nemotron (NAS): Llama of whose layers some lack attention or the feed-forward block, or have a linear layer instead. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import {
  type DecoderLayer,
  GatedMLP,
  gelu,
  geluApprox,
  type KeyValueCache,
  type Layer,
  Linear,
  type Mask,
  type MaskRule,
  Module,
  noMask,
  type Residual,
  RMSNorm,
  swiglu,
} from "../nn";
import { attentionFields, checkHeads, headsOf, ropeOf, size, trunkFields } from "./args";
import { denseAwq } from "./awq-facts";
import type { TensorChange } from "./gguf/changes";
import { pairedRows } from "./gguf/changes";
import { decoder } from "./gguf/decoder";
import type { GgufDescription } from "./gguf/facts";
import { u32 } from "./gguf/facts";
import { noPlace } from "./gguf/rope";
import { CausalLM } from "./language-model";
import * as llama from "./llama";

/** A part of a layer: absent, a linear layer, or the usual one. */
const part = { no_op: z.boolean().nullish(), replace_with_linear: z.boolean().nullish() };

const BlockConfig = z.object({
  attention: z.object({ ...part, n_heads_in_group: size.nullish() }),
  ffn: z.object({ ...part, ffn_mult: z.number().positive().nullish() }),
});

export const Args = z
  .object({
    ...trunkFields,
    ...attentionFields,
    hidden_size: size.default(8192),
    num_hidden_layers: size.default(80),
    num_attention_heads: size.default(64),
    rms_norm_eps: z.number().positive().default(1e-5),
    vocab_size: size.default(128_256),
    block_configs: z.array(BlockConfig),
    hidden_act: z.enum(["silu", "gelu", "gelu_new", "gelu_fast"]).default("silu"),
    mlp_bias: z.boolean().default(false),
    max_position_embeddings: size.default(131_072),
    tie_word_embeddings: z.boolean().default(false),
  })
  .superRefine(({ block_configs: blocks, num_hidden_layers: count, num_attention_heads: heads }, context) => {
    const problem = (path: (string | number)[], message: string) =>
      context.addIssue({ code: "custom", path: ["block_configs", ...path], message });
    if (blocks.length !== count) problem([], `has ${blocks.length} entries, but "num_hidden_layers" is ${count}`);
    for (const [i, { attention, ffn }] of blocks.entries()) {
      const group = attention.n_heads_in_group;
      if (isUsual(attention) && !(group && heads % group === 0)) {
        const message = `is ${group ?? "missing"}, but must divide "num_attention_heads" (${heads})`;
        problem([i, "attention", "n_heads_in_group"], message);
      }
      if (isUsual(ffn) && !ffn.ffn_mult) problem([i, "ffn", "ffn_mult"], "is missing");
    }
  })
  .superRefine(checkHeads);

type Args = z.infer<typeof Args>;

const isUsual = ({ no_op, replace_with_linear }: { no_op?: boolean | null; replace_with_linear?: boolean | null }) =>
  !no_op && !replace_with_linear;

/** In place of attention or the feed-forward block. */
class Replacement extends Module {
  linear: Layer;

  constructor(dims: number, bias: boolean) {
    super();
    this.linear = new Linear(dims, dims, { bias });
  }

  forward(x: Tensor): Tensor {
    return this.linear.forward(x);
  }
}

const activations = {
  silu: swiglu,
  gelu: (gate: Tensor, x: Tensor) => gelu(gate).multiply(x),
  gelu_new: (gate: Tensor, x: Tensor) => geluApprox(gate).multiply(x),
  gelu_fast: (gate: Tensor, x: Tensor) => geluApprox(gate).multiply(x),
};

/** Two thirds of what the multiplier says, up to a multiple of 256. */
const hiddenDims = (multiplier: number, dims: number) =>
  256 * Math.ceil(Math.trunc((2 * Number(multiplier.toFixed(6)) * dims) / 3) / 256);

class Block extends Module implements DecoderLayer {
  input_layernorm?: RMSNorm;
  self_attn?: llama.SelfAttention;
  post_attention_layernorm?: RMSNorm;
  mlp?: Layer;
  /** What looks at no other token keeps nothing. */
  readonly stateless: boolean;
  readonly mask?: MaskRule;

  constructor(args: Args, index: number) {
    super();
    const { hidden_size: D, rms_norm_eps: eps, num_attention_heads: heads, attention_bias, mlp_bias: bias } = args;
    const { attention, ffn } = args.block_configs[index]!;
    this.stateless = !isUsual(attention);
    if (this.stateless) this.mask = noMask as unknown as MaskRule;
    if (!attention.no_op) {
      const sizes = () => ({ ...args, num_key_value_heads: heads / attention.n_heads_in_group! });
      this.input_layernorm = new RMSNorm(D, eps);
      this.self_attn = this.stateless
        ? new Replacement(D, attention_bias)
        : new llama.Attention(sizes(), { rope: ropeOf({ ...args, rope_traditional: false }, { base: 500_000 }) });
    }
    if (ffn.no_op) return;
    const activation = activations[args.hidden_act];
    this.post_attention_layernorm = new RMSNorm(D, eps);
    this.mlp = ffn.replace_with_linear
      ? new Replacement(D, bias)
      : new GatedMLP(D, hiddenDims(ffn.ffn_mult!, D), { bias, activation });
  }

  forward(x: Residual, mask: Mask, cache?: KeyValueCache): Residual {
    const h = this.self_attn ? x.plus(this.self_attn.forward(x.branch(this.input_layernorm!), mask, cache)) : x;
    return this.mlp ? h.plus(this.mlp.forward(h.branch(this.post_attention_layernorm!))) : h;
  }
}

export class Model extends CausalLM {
  constructor(args: Args) {
    super(args, (index) => new Block(args, index));
  }
}

export const awq = denseAwq();

/** As `pairedRows`, of layers that have so many heads each. @param width rows of a head */
const pairedRowsOf = (width: number): TensorChange => ({
  // Whole heads, that is, as of halves of a head in pairs.
  rows: width / 2,
  read: (x) => pairedRows(x.dim(0) / width).read(x),
  write: (x) => pairedRows(x.dim(0) / width).write(x),
});

/** Of each layer: how many heads there are of queries and of keys, and how wide the feed-forward block is. */
const layerFields = ["attention.head_count", "attention.head_count_kv", "feed_forward_length"] as const;

function readBlocks(file: GgufDescription, layers: number, dims: number): z.infer<typeof BlockConfig>[] {
  const lists = layerFields.map((key) => file.list(key) ?? file.wrong(`"${key}" is missing`));
  return Array.from({ length: layers }, (_, i) => {
    const [heads = 0, kvHeads = 0, width = 0] = lists.map((list) => list[list.length === 1 ? 0 : i]);
    if (heads > 0 && kvHeads === 0) file.wrong(`attention of layer ${i} is a linear layer, which mlxlm does not read`);
    return {
      attention: heads > 0 ? { n_heads_in_group: heads / kvHeads } : { no_op: true },
      ffn: width > 0 ? { ffn_mult: (3 * width) / (2 * dims) } : { no_op: true },
    };
  });
}

export const gguf = decoder("deci", {
  changes(config) {
    const paired = pairedRowsOf(headsOf(config as Args).headDim);
    return { "self_attn.q_proj": paired, "self_attn.k_proj": paired };
  },
  ropeBase: 500_000,
  only: { hidden_act: "silu", mlp_bias: false },
  read: (file, { num_hidden_layers, hidden_size }) => ({
    intermediate_size: undefined,
    num_key_value_heads: undefined,
    block_configs: readBlocks(file, num_hidden_layers as number, hidden_size as number),
  }),
  write(settings) {
    const { block_configs: blocks, num_attention_heads: heads, hidden_size: dims } = settings as unknown as Args;
    // llama.cpp gathers the tokens that are asked for in the last layer.
    if (blocks.at(-1)!.ffn.no_op) noPlace("a last layer without a feed-forward block");
    for (const { attention, ffn } of blocks) {
      if (ffn.replace_with_linear) noPlace("a feed-forward block that is a linear layer");
      if (attention.replace_with_linear) noPlace("attention that is a linear layer");
      // llama.cpp forgets what such a layer computed.
      if (ffn.no_op && !attention.no_op) noPlace("a layer of attention without a feed-forward block");
    }
    return {
      "attention.head_count": u32(blocks.map(({ attention }) => (attention.no_op ? 0 : heads))),
      "attention.head_count_kv": u32(
        blocks.map(({ attention: { n_heads_in_group: group } }) => (group ? heads / group : 0)),
      ),
      feed_forward_length: u32(blocks.map(({ ffn }) => (ffn.ffn_mult ? hiddenDims(ffn.ffn_mult, dims) : 0))),
    };
  },
});
