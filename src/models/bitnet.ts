/** BitNet b1.58: Llama with ternary projections, a norm ahead of each block's last one, and ReLU² in the MLP. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { BitLinear, type KeyValueCache, type Layer, type Mask, Module, RMSNorm, swiglu } from "../nn";
import { checkHeads, denseFields, size } from "./args";
import type { MergedTensors } from "./gguf/changes";
import { decoder } from "./gguf/decoder";
import { plainLayer, TensorNames } from "./gguf/names";
import { noPlace } from "./gguf/rope";
import { CausalLM } from "./language-model";
import * as llama from "./llama";

export const Args = z
  .object({
    ...denseFields,
    num_key_value_heads: size,
    mlp_bias: z.boolean().default(false),
    hidden_act: z.enum(["relu2", "silu"]).default("relu2"),
  })
  .superRefine(checkHeads);

type Args = z.infer<typeof Args>;

class Attention extends llama.Attention {
  attn_sub_norm: RMSNorm;

  constructor(args: Args) {
    super(args, { linear: (from, to, bias) => new BitLinear(from, to, { bias }) });
    this.attn_sub_norm = new RMSNorm(args.hidden_size, args.rms_norm_eps);
  }

  override forward(x: Tensor, mask: Mask, cache?: KeyValueCache): Tensor {
    return this.o_proj.forward(this.attn_sub_norm.forward(this.attend(x, mask, cache)));
  }
}

class MLP extends Module {
  gate_proj: Layer;
  down_proj: Layer;
  up_proj: Layer;
  ffn_sub_norm: RMSNorm;

  constructor(readonly args: Args) {
    super();
    const { hidden_size: D, intermediate_size: H, mlp_bias: bias, rms_norm_eps } = args;
    this.gate_proj = new BitLinear(D, H, { bias });
    this.down_proj = new BitLinear(H, D, { bias });
    this.up_proj = new BitLinear(D, H, { bias });
    this.ffn_sub_norm = new RMSNorm(H, rms_norm_eps);
  }

  /** x (…, D) → (…, D) */
  forward(x: Tensor): Tensor {
    const [gate, up] = [this.gate_proj.forward(x), this.up_proj.forward(x)];
    const gated = this.args.hidden_act === "silu" ? swiglu(gate, up) : gate.maximum(0).square().multiply(up);
    return this.down_proj.forward(this.ffn_sub_norm.forward(gated));
  }
}

export class Model extends CausalLM {
  constructor(args: Args) {
    super(args, () => new llama.Block(new Attention(args), new MLP(args), args));
  }
}

const { ffn_norm, attn_norm, ...projections } = plainLayer;

/** Where the bits of the four rows in a byte begin. */
const shifts = [0, 2, 4, 6];

/** The numbers of a ternary matrix (N, K): they are all −s, 0 or s. */
function numbersOf(packed: Tensor, scale: Tensor): Tensor {
  const codes = mx.concatenate(shifts.map((shift) => packed.rightShift(shift).bitwiseAnd(3)));
  return codes.astype("float32").subtract(1).multiply(scale.astype("float32"));
}

/** The other way round: (N / 4, K) of codes, and (1) of s. */
function packedOf(numbers: Tensor): [codes: Tensor, scale: Tensor] {
  const scale = numbers.astype("float32").abs().max();
  const codes = mx
    .round(numbers.astype("float32").divide(scale.maximum(1e-30)))
    .add(1)
    .astype("uint8");
  const rows = codes.split(shifts.length, 0).map((part, i) => part.leftShift(shifts[i]!));
  return [rows.reduce((sum, row) => sum.add(row)).astype("uint8"), scale.reshape(1)];
}

/** Files have ternary matrices as numbers, in whatever type. */
function ternary({ num_hidden_layers: layers }: Args): MergedTensors {
  const parts = Object.entries(projections).filter(([name]) => !name.endsWith("norm"));
  return Object.fromEntries(
    Array.from({ length: layers }, (_, layer) =>
      parts.map(([name, own]) => {
        const path = `model.layers.${layer}.${own}`;
        const merged = {
          parameters: [`${path}.weight`, `${path}.weight_scale`],
          merge: ([packed, scale]: readonly Tensor[]) => numbersOf(packed!, scale!),
          part: packedOf,
        };
        return [`blk.${layer}.${name}.weight`, merged] as const;
      }),
    ).flat(),
  );
}

/**
 * llama.cpp has the graph of the first models of the kind, whose gates are SiLU. Microsoft's have ReLU², which llama.cpp
 * computes as SiLU: with our test's weights, log-probabilities are then off by up to 3.6. Files don't say which
 * it is. Of the models that there are, those of several queries to a key are Microsoft's: they are read as what they were trained with.
 */
export const gguf = decoder("bitnet", {
  names: new TensorNames({
    attn_norm: attn_norm!,
    attn_sub_norm: "self_attn.attn_sub_norm",
    ffn_norm: ffn_norm!,
    ffn_sub_norm: "mlp.ffn_sub_norm",
  }),
  merged: (config) => ternary(config as Args),
  only: { attention_bias: false, mlp_bias: false, rope_traditional: false, tie_word_embeddings: true },
  read: (_, { num_attention_heads: heads, num_key_value_heads: kvHeads }) => ({
    hidden_act: heads === kvHeads ? "silu" : "relu2",
  }),
  write: ({ hidden_act: activation }) => {
    if (activation !== "silu") noPlace(`"hidden_act" "${activation}", which llama.cpp computes as "silu",`);
    return {};
  },
});
