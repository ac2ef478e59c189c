/** InternLM 2: Llama under other names, with queries, keys and values in one projection, by groups. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  type DecoderLayer,
  type KeyValueCache,
  type Mask,
  Module,
  NamedAttention,
  NamedMLP,
  type Residual,
  RMSNorm,
  swiglu,
} from "../nn";
import { checkHeads, denseFields, headsOf, ropeOf, size } from "./args";
import type { AwqFacts } from "./awq-facts";
import { type JoinedTensors, pairedRows } from "./gguf/changes";
import { decoder } from "./gguf/decoder";
import { TensorNames } from "./gguf/names";
import { withinContext } from "./gguf/rope";
import { NamedLM } from "./named-lm";

export const Args = z
  .object({
    ...denseFields,
    bias: z.boolean().default(true),
    max_position_embeddings: size.default(32_768),
    tie_word_embeddings: z.boolean().default(false),
  })
  .superRefine(checkHeads);

type Args = z.infer<typeof Args>;

class Block extends Module implements DecoderLayer {
  attention: NamedAttention;
  feed_forward: NamedMLP;
  attention_norm: RMSNorm;
  ffn_norm: RMSNorm;

  constructor(args: Args) {
    super();
    const { hidden_size: dims, rms_norm_eps: eps, bias } = args;
    this.attention = new NamedAttention({
      ...headsOf(args),
      ...{ dims, rope: ropeOf(args), bias, inputs: "wqkv", order: "by group", output: "wo" },
    });
    const names = { gate: "w1", up: "w3", down: "w2" };
    this.feed_forward = new NamedMLP(dims, args.intermediate_size, { names, bias: false, activation: swiglu });
    this.attention_norm = new RMSNorm(dims, eps);
    this.ffn_norm = new RMSNorm(dims, eps);
  }

  forward(x: Residual, mask: Mask, cache?: KeyValueCache): Residual {
    const h = x.plus(this.attention.forward(x.branch(this.attention_norm), mask, cache));
    return h.plus(this.feed_forward.forward(h.branch(this.ffn_norm)));
  }
}

export class Model extends NamedLM {
  constructor(args: Args) {
    const { hidden_size: dims, vocab_size: vocab, num_hidden_layers: layers, rms_norm_eps: eps } = args;
    super(
      { dims, vocab, layers, tied: args.tie_word_embeddings },
      { trunk: "model", embedding: "tok_embeddings", layers: "layers", norm: "norm", head: ".output" },
      () => new Block(args),
      new RMSNorm(dims, eps),
    );
  }
}

export const joins = [["w1", "w3"]];

/** Each head of keys and of values has its queries ahead of it in checkpoints; in files, all of a kind stand together. */
function projections(config: object): JoinedTensors {
  const { heads, kvHeads, headDim } = headsOf(config as Args);
  const group = heads / kvHeads;
  const [queries, keys] = [pairedRows(heads), pairedRows(kvHeads)];
  const byGroup = (x: Tensor) => x.reshape(kvHeads, -1, headDim, x.dim(-1));
  const flat = (x: Tensor) => x.reshape(-1, x.dim(-1));
  return {
    "attention.wqkv": {
      parts: ["attn_q", "attn_k", "attn_v"],
      movesRows: true,
      join([q, k, v]) {
        const parts = [queries.read(q!), keys.read(k!), v!].map(byGroup);
        return flat(mx.concatenate(parts, { axis: 1 }));
      },
      split(x) {
        const [q, k, v] = byGroup(x)
          .split([group, group + 1], 1)
          .map(flat) as [Tensor, Tensor, Tensor];
        return [queries.write(q), keys.write(k), v];
      },
    },
  };
}

export const gguf = decoder("internlm2", {
  names: new TensorNames(
    {
      attn_norm: "attention_norm",
      attn_output: "attention.wo",
      ffn_norm: "ffn_norm",
      ffn_gate: "feed_forward.w1",
      ffn_up: "feed_forward.w3",
      ffn_down: "feed_forward.w2",
    },
    { outer: { token_embd: "model.tok_embeddings", output: "output" } },
  ),
  joined: projections,
  common: withinContext,
  only: { bias: false, rope_traditional: false, tie_word_embeddings: false },
});

export const awq: AwqFacts = {
  noClip: ["wqkv"],
  groups: [
    { before: "attention_norm", layers: ["attention.wqkv"], part: "attention" },
    { before: "feed_forward.w3", layers: ["feed_forward.w2"] },
    { before: "ffn_norm", layers: ["feed_forward.w1", "feed_forward.w3"], part: "feed_forward" },
  ],
};
