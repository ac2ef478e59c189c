/**
 * Ling and Ring 2 Linear (Bailing): lightning attention, whose state fades at a fixed rate of each head; every few layers
 * attention that sees all, and experts beside shared ones. Qin et al. 2024, arXiv:2401.04658.
 */
import { z } from "zod";
import type { Tensor } from "../mlx";
import { checkHeads, size } from "./args";
import { HybridBlock, HybridLM, LightningAttention } from "./bailing_hybrid";
import * as bailing from "./bailing_moe";
import { attendsToAll } from "./bailing_moe_v3";

export const Args = z
  .object({
    ...bailing.fields,
    /** Every how many layers one sees all. */
    layer_group_size: size,
    group_norm_size: size,
    rope_theta: z.number().positive(),
  })
  .superRefine(checkHeads)
  .superRefine(bailing.checkExperts);

type Args = z.infer<typeof Args>;

function block(args: Args, index: number): HybridBlock {
  const { num_hidden_layers: layers, hidden_size: dims, num_attention_heads: heads } = args;
  // Later layers remember longer.
  const share = 1 - Math.max(0, index - 1) / Math.max(1, layers - 1) + 1e-5;
  const attention = attendsToAll(index, layers, args.layer_group_size)
    ? bailing.attentionOf(args, args.rope_traditional)
    : new LightningAttention({ ...args, head_dim: dims / heads }, share);
  return new HybridBlock(attention, bailing.feedForward(args, index), args);
}

export class Model extends HybridLM {
  readonly #args: Args;

  constructor(args: Args) {
    super(args, (index) => block(args, index));
    this.#args = args;
  }

  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    return bailing.sanitizeBailing(super.sanitize(weights), this.#args);
  }
}

export { awq, keepsDtype, quantize } from "./bailing_moe";
