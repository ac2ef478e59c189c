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

function feedForward(args: TextArgs, index: number): Layer {
  const step = args.interleave_moe_layer_step;
  const isSparse = args.moe_layers?.includes(index) ?? index % step === step - 1;
  return isSparse ? new MoE(args) : new GatedMLP(args.hidden_size, args.intermediate_size_mlp);
}

class TextModel extends CausalLM {
  constructor(args: TextArgs) {
    super({ ...args, tie_word_embeddings: false }, (index) => {
      const listed = args.no_rope_layers?.length ? args.no_rope_layers[index] : (index + 1) % 4;
      const attention = new Attention(args, Boolean(listed));
      const mlp = feedForward(args, index);
      const { attention_chunk_size: chunk } = args;
      return listed && chunk ? new ChunkedBlock(attention, mlp, args, chunk) : new Block(attention, mlp, args);
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
