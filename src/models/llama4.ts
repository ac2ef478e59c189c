/**
 * Llama 4, the language model: layers of attention within chunks of the sequence and, every fourth, of full attention
 * without positions; experts of which each token uses one, its input scaled ahead of it, beside a shared one.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  type ChunkedCache,
  ChunkedKVCache,
  chunkedAttention,
  GatedMLP,
  type KeyValueCache,
  type Layer,
  Linear,
  type Mask,
  Module,
  type Residual,
  SwitchGLU,
} from "../nn";
import { checkHeads, size } from "./args";
import { blockAwq } from "./awq-facts";
import { decoder } from "./gguf/decoder";
import { u32 } from "./gguf/facts";
import { plainLayer, sharedExpert, TensorNames } from "./gguf/names";
import { noPlace } from "./gguf/rope";
import { CausalLM } from "./language-model";
import { Attention, attentionFields, Block, checkRotated } from "./llama4_text";
import { NestedLM, nestedArgs } from "./nested";

const TextArgs = z
  .object({
    ...attentionFields,
    vocab_size: size,
    attention_chunk_size: size.nullish(),
    interleave_moe_layer_step: size,
    /** Which layers have experts, where a list says it. */
    moe_layers: z.array(z.int().nonnegative()).nullish(),
    intermediate_size: size,
    intermediate_size_mlp: size,
    num_experts_per_tok: z.literal(1),
    num_local_experts: size,
    attn_temperature_tuning: z.union([z.boolean(), z.number()]).default(4),
  })
  .superRefine(checkHeads)
  .superRefine(checkRotated);

type TextArgs = z.infer<typeof TextArgs>;

export const Args = nestedArgs(TextArgs);

class MoE extends Module {
  experts: SwitchGLU;
  router: Layer;
  shared_expert: GatedMLP;

  constructor({ hidden_size: D, intermediate_size, num_local_experts: experts }: TextArgs) {
    super();
    this.experts = new SwitchGLU(D, intermediate_size, experts);
    this.router = new Linear(D, experts, { bias: false });
    this.shared_expert = new GatedMLP(D, intermediate_size);
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor): Tensor {
    const scores = this.router.forward(x);
    const chosen = mx.stopGradient(mx.argmax(scores, { axis: -1, keepdims: true }));
    const weight = scores.takeAlongAxis(chosen, -1).astype("float32").sigmoid().astype(x.dtype);
    return this.experts.forward(x.multiply(weight), chosen).squeeze(-2).add(this.shared_expert.forward(x));
  }
}

/** A layer whose tokens see their own chunk of the sequence alone. */
class ChunkedBlock extends Block {
  constructor(
    attention: Attention,
    feedForward: Layer,
    args: TextArgs,
    readonly chunk: number,
  ) {
    super(attention, feedForward, args, chunkedAttention(chunk));
  }

  override forward(x: Residual, mask: Mask, cache?: KeyValueCache): Residual {
    (cache as ChunkedCache | undefined)?.dropFront();
    return super.forward(x, mask, cache);
  }

  makeCache(): KeyValueCache {
    return new ChunkedKVCache(this.chunk);
  }
}

const isPeriodic = ({ interleave_moe_layer_step: step }: TextArgs, index: number) => index % step === step - 1;

const isSparse = (args: TextArgs, index: number) => args.moe_layers?.includes(index) ?? isPeriodic(args, index);

/** Whether a layer has positions. */
const rotates = ({ no_rope_layers: listed }: TextArgs, index: number) =>
  Boolean(listed?.length ? listed[index] : (index + 1) % 4);

const feedForward = (args: TextArgs, index: number): Layer =>
  isSparse(args, index) ? new MoE(args) : new GatedMLP(args.hidden_size, args.intermediate_size_mlp);

class TextModel extends CausalLM {
  constructor(args: TextArgs) {
    super({ ...args, tie_word_embeddings: false }, (index) => {
      const isRotated = rotates(args, index);
      const attention = new Attention(args, isRotated);
      const mlp = feedForward(args, index);
      const { attention_chunk_size: chunk } = args;
      return isRotated && chunk ? new ChunkedBlock(attention, mlp, args, chunk) : new Block(attention, mlp, args);
    });
  }

  /** Takes the experts' joint weights, (E, inputs, outputs), apart and turns them. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const sanitized = new Map<string, Tensor>();
    for (const [name, tensor] of super.sanitize(weights)) {
      const [, prefix, projection] = /^(.*\.experts\.)(gate_up_proj|down_proj)$/.exec(name) ?? [];
      if (projection === "gate_up_proj") {
        const [gate, up] = tensor.split(2, -1) as [Tensor, Tensor];
        sanitized.set(`${prefix}gate_proj.weight`, gate.swapaxes(1, 2));
        sanitized.set(`${prefix}up_proj.weight`, up.swapaxes(1, 2));
      } else if (projection) sanitized.set(`${prefix}down_proj.weight`, tensor.swapaxes(1, 2));
      else sanitized.set(name, tensor);
    }
    return sanitized;
  }
}

export class Model extends NestedLM {
  constructor(args: TextArgs) {
    super(new TextModel(args));
  }
}

export const awq = blockAwq({ inner: "language_model", mlp: "feed_forward", router: "router" });

/** llama.cpp knows Maverick, which has no norms of queries and keys, by its number of experts. */
const isNormed = (experts: number) => experts !== 128;

/** What files have no fields for, as published. */
const published = { attention_bias: false, attention_chunk_size: 8192, floor_scale: 8192, attn_scale: 0.1 };

export const gguf = decoder("llama4", {
  names: new TensorNames(
    {
      ...plainLayer,
      ffn_gate: "feed_forward.gate_proj",
      ffn_up: "feed_forward.up_proj",
      ffn_down: "feed_forward.down_proj",
      ffn_gate_inp: "feed_forward.router",
      ffn_gate_exps: "feed_forward.experts.gate_proj",
      ffn_up_exps: "feed_forward.experts.up_proj",
      ffn_down_exps: "feed_forward.experts.down_proj",
      ...sharedExpert("feed_forward.shared_expert"),
    },
    {
      halves: { ffn_gate_up_exps: ["feed_forward.experts.gate_proj", "feed_forward.experts.up_proj"] },
      prefix: "language_model.",
    },
  ),
  only: published,
  integers: {
    interleave_moe_layer_step: "interleave_moe_layer_step",
    expert_count: "num_local_experts",
    expert_used_count: "num_experts_per_tok",
    expert_feed_forward_length: "intermediate_size",
  },
  read(file, { intermediate_size }) {
    if (file.number("attention.sliding_window") === 0) file.wrong("its attention is not by chunks, which mlxlm needs");
    return {
      intermediate_size_mlp: file.number("feed_forward_length") ?? intermediate_size,
      use_qk_norm: isNormed(file.need("expert_count")),
    };
  },
  write(settings) {
    const args = settings as unknown as TextArgs;
    const layers = Array.from({ length: args.num_hidden_layers }, (_, index) => index);
    if (!layers.every((index) => rotates(args, index) === ((index + 1) % 4 !== 0))) {
      noPlace('"no_rope_layers" that are not each fourth');
    }
    if (!layers.every((index) => isSparse(args, index) === isPeriodic(args, index))) {
      noPlace('"moe_layers" that do not follow "interleave_moe_layer_step"');
    }
    if (!args.attn_temperature_tuning) noPlace('"attn_temperature_tuning" false');
    if (args.use_qk_norm !== isNormed(args.num_local_experts)) {
      noPlace(`"use_qk_norm" ${args.use_qk_norm} with ${args.num_local_experts} experts`);
    }
    return { feed_forward_length: u32(args.intermediate_size_mlp) };
  },
});
