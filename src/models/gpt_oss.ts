/**
 * gpt-oss: Llama with sinks in its attention, every other layer a sliding window, biases everywhere, and experts with a
 * clipped SwiGLU, whose weights come packed as mxfp4.
 */
import { isDeepStrictEqual } from "node:util";
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import {
  attention,
  divideHeads,
  initializeRope,
  joinHeads,
  type KeyValueCache,
  type Layer,
  Linear,
  type Mask,
  Module,
  mixExperts,
  needDtype,
  needShape,
  parameter,
  projectHeads,
  type RotaryEmbedding,
  type Split,
  SwitchGLU,
  swigluClipped,
} from "../nn";
import {
  AttentionType,
  checkExperts,
  checkHeads,
  checkLayerTypes,
  maskOf,
  ropeFields,
  ropeOptions,
  size,
} from "./args";
import { blockAwq } from "./awq-facts";
import { decoder, expertCounts } from "./gguf/decoder";
import { plainLayer, TensorNames } from "./gguf/names";
import { noPlace } from "./gguf/rope";
import { CausalLM } from "./language-model";
import { Block } from "./llama";

export const Args = z
  .object({
    num_hidden_layers: size.default(36),
    num_local_experts: size.default(128),
    num_experts_per_tok: size.default(4),
    vocab_size: size.default(201_088),
    rms_norm_eps: z.number().positive().default(1e-5),
    hidden_size: size.default(2880),
    intermediate_size: size.default(2880),
    head_dim: size.default(64),
    num_attention_heads: size.default(64),
    num_key_value_heads: size.default(8),
    sliding_window: size.default(128),
    ...ropeFields,
    layer_types: z.array(AttentionType).nullish(),
  })
  .superRefine(checkHeads)
  .superRefine(checkLayerTypes)
  .superRefine(checkExperts("num_experts_per_tok", "num_local_experts"));

type Args = z.infer<typeof Args>;

class Attention extends Module {
  /** A score of each head that attends to nothing, (H). */
  sinks: Tensor;
  q_proj: Layer;
  k_proj: Layer;
  v_proj: Layer;
  o_proj: Layer;
  readonly rope: RotaryEmbedding;
  readonly heads: number;
  readonly kvHeads: number;
  readonly scale: number;

  constructor(args: Args, type: AttentionType) {
    super();
    const { hidden_size: D, num_attention_heads: heads, num_key_value_heads: kvHeads, head_dim: headDim } = args;
    this.sinks = parameter(mx.zeros([heads]));
    this.q_proj = new Linear(D, heads * headDim);
    this.k_proj = new Linear(D, kvHeads * headDim);
    this.v_proj = new Linear(D, kvHeads * headDim);
    this.o_proj = new Linear(heads * headDim, D);
    this.rope = initializeRope({ dims: headDim, ...ropeOptions(args, { base: 150_000, layerType: type }) });
    this.heads = heads;
    this.kvHeads = kvHeads;
    this.scale = headDim ** -0.5;
  }

  /** x (B, T, D) → (B, T, D) */
  forward(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    const [q, k, v] = projectHeads(x, [this.q_proj, this.k_proj, this.v_proj], this, cache?.offset);
    const out = attention(q, k, v, { scale: this.scale, mask, cache, sinks: this.sinks });
    return this.o_proj.forward(joinHeads(out));
  }

  shard(split: Split): void {
    divideHeads(this, split, { tensors: ["sinks"] });
  }
}

class MLP extends Module {
  experts: SwitchGLU;
  router: Layer;
  readonly expertsPerToken: number;

  constructor(args: Args) {
    super();
    const { hidden_size: D, num_local_experts: experts } = args;
    this.experts = new SwitchGLU(D, args.intermediate_size, experts, { bias: true, activation: swigluClipped });
    this.router = new Linear(D, experts);
    this.expertsPerToken = args.num_experts_per_tok;
  }

  /** x (B, T, D) → (B, T, D): the chosen experts' results, weighted by a softmax over their scores. */
  forward(x: Tensor): Tensor {
    const scores = this.router.forward(x);
    const k = this.expertsPerToken;
    // This end of the order, as mlx-lm has it: the order of experts is that of rounding in their sum.
    const order = mx.argpartition(scores, -k, { axis: -1 });
    const experts = mx.stopGradient(order.at(mx.ellipsis, mx.slice(-k)));
    const weights = mx.softmax(scores.takeAlongAxis(experts, -1), { axis: -1, precise: true });
    return mixExperts(x, this.experts, { experts, weights });
  }
}

/** The type of a layer: they alternate where no list says it. */
const typeOf = (args: Pick<Args, "layer_types">, index: number): AttentionType =>
  args.layer_types?.[index] ?? (index % 2 === 0 ? "sliding_attention" : "full_attention");

export class Model extends CausalLM {
  readonly #args: Args;

  constructor(args: Args) {
    super({ ...args, tie_word_embeddings: false }, (index) => {
      const type = typeOf(args, index);
      return new Block(new Attention(args, type), new MLP(args), args, maskOf(type, args));
    });
    this.#args = args;
  }

  /** Takes the gate's and the value's rows apart, which checkpoints interleave; mxfp4 blocks become MLX's words. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const sanitized = new Map<string, Tensor>();
    for (const [name, tensor] of super.sanitize(weights)) {
      const parts = /^(.*\.experts\.)(gate_up_proj|down_proj)(_blocks|_scales|_bias|)$/.exec(name);
      if (!parts) {
        sanitized.set(name, tensor);
        continue;
      }
      const [, prefix, projection, form] = parts as unknown as [string, string, Projection, Form];
      const [kind, rows] = [kinds[form], rowsOf(name, tensor, projection, form, this.#args)];
      if (projection === "down_proj") {
        sanitized.set(`${prefix}down_proj.${kind}`, rows);
      } else {
        sanitized.set(`${prefix}gate_proj.${kind}`, mx.contiguous(everyOther(rows, 0)));
        sanitized.set(`${prefix}up_proj.${kind}`, mx.contiguous(everyOther(rows, 1)));
      }
    }
    return sanitized;
  }
}

type Projection = "gate_up_proj" | "down_proj";

/** Kinds of parameters, by the ends of the checkpoint's names. */
const kinds = { _blocks: "weight", _scales: "scales", _bias: "bias", "": "weight" } as const;

type Form = keyof typeof kinds;

/** A checkpoint's tensor of experts with one entry for each output on axis 1. */
function rowsOf(name: string, tensor: Tensor, projection: Projection, form: Form, args: Args): Tensor {
  const { num_local_experts: E, hidden_size: D, intermediate_size: I } = args;
  const [N, K] = projection === "down_proj" ? [D, I] : [2 * I, D];
  const shapes = { _blocks: [E, N, K / 32, 16], _scales: [E, N, K / 32], _bias: [E, N], "": [E, K, N] };
  needShape(name, tensor, shapes[form]);
  if (form === "_blocks" || form === "_scales") needDtype(name, tensor, "uint8");
  if (form === "") return tensor.swapaxes(1, 2);
  // (E, N, K / 32, 16) bytes → (E, N, K / 8) words
  return form === "_blocks" ? tensor.view("uint32").flatten(-2) : tensor;
}

/** Rows first, first + 2, … of axis 1. */
const everyOther = (x: Tensor, first: number) => x.at(mx.slice(), mx.slice(first, undefined, 2));

/** The router decides which experts are read: it stays at 8 bits. */
export const quantize = (path: string) => (path.endsWith("router") ? { groupSize: 64, bits: 8 } : undefined);

/** llama.cpp knows which layers slide, and has one rotation for all. */
export const gguf = decoder("gpt-oss", {
  names: new TensorNames(
    {
      ...plainLayer,
      post_attention_norm: "post_attention_layernorm",
      ffn_gate_inp: "mlp.router",
      ffn_gate_exps: "mlp.experts.gate_proj",
      ffn_up_exps: "mlp.experts.up_proj",
      ffn_down_exps: "mlp.experts.down_proj",
    },
    { parameters: { "attn_sinks.weight": "self_attn.sinks" } },
  ),
  ropeBase: 150_000,
  hasWindows: true,
  integers: expertCounts,
  read: (file) => ({
    intermediate_size: file.number("expert_feed_forward_length") ?? file.need("feed_forward_length"),
    sliding_window: file.need("attention.sliding_window"),
  }),
  write(settings) {
    const args = settings as unknown as Args;
    const types = Array.from({ length: args.num_hidden_layers }, (_, index) => typeOf(args, index));
    if (types.some((type, index) => type !== typeOf({}, index))) noPlace('"layer_types" that do not alternate');
    const sliding = ropeOptions(args, { base: 150_000, layerType: "sliding_attention" });
    if (!isDeepStrictEqual(sliding, ropeOptions(args, { base: 150_000 }))) noPlace("a rotation of sliding layers");
    return {
      "attention.sliding_window": ["uint32", args.sliding_window],
      expert_feed_forward_length: ["uint32", args.intermediate_size],
    };
  },
});

export const awq = blockAwq({ router: "router", isLinear: false });
