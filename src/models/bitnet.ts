/** BitNet b1.58: Llama with ternary projections, a norm ahead of each block's last one, and ReLU² in the MLP. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import { BitLinear, type KeyValueCache, type Layer, type Mask, Module, RMSNorm } from "../nn";
import { checkHeads, denseFields, size } from "./args";
import { CausalLM } from "./language-model";
import * as llama from "./llama";

export const Args = z
  .object({
    ...denseFields,
    num_key_value_heads: size,
    mlp_bias: z.boolean().default(false),
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

  constructor({ hidden_size: D, intermediate_size: H, mlp_bias: bias, rms_norm_eps }: Args) {
    super();
    this.gate_proj = new BitLinear(D, H, { bias });
    this.down_proj = new BitLinear(H, D, { bias });
    this.up_proj = new BitLinear(D, H, { bias });
    this.ffn_sub_norm = new RMSNorm(H, rms_norm_eps);
  }

  /** x (…, D) → (…, D) */
  forward(x: Tensor): Tensor {
    const gate = this.gate_proj.forward(x).maximum(0).square();
    return this.down_proj.forward(this.ffn_sub_norm.forward(gate.multiply(this.up_proj.forward(x))));
  }
}

export class Model extends CausalLM {
  constructor(args: Args) {
    super(args, () => new llama.Block(new Attention(args), new MLP(args), args));
  }
}
