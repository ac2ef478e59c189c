/** InternLM 2: Llama under other names, with queries, keys and values in one projection, by groups. */
import { z } from "zod";
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

export const awq: AwqFacts = {
  noClip: ["wqkv"],
  groups: [
    { before: "attention_norm", layers: ["attention.wqkv"], part: "attention" },
    { before: "feed_forward.w3", layers: ["feed_forward.w2"] },
    { before: "ffn_norm", layers: ["feed_forward.w1", "feed_forward.w3"], part: "feed_forward" },
  ],
};
