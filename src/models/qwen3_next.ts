/**
 * Qwen 3 Next: Qwen 3.5 without a vision tower, whose delta layers have two projections instead of four, and whose experts
 * may be in some layers alone.
 */
import { z } from "zod";
import { GroupedDeltaNet, type Joins, usualJoins } from "../nn";
import { checkHeads, count, size } from "./args";
import { blockAwq } from "./awq-facts";
import { qwen3Next } from "./gguf/qwen35";
import { checkHybrid, deltaSizes, feedForward, HybridLM, textFields } from "./qwen3_5";

export const Args = z
  .object({
    ...textFields,
    hidden_size: size,
    num_hidden_layers: size,
    intermediate_size: size,
    num_attention_heads: size,
    num_key_value_heads: size,
    head_dim: size,
    vocab_size: size,
    rms_norm_eps: z.number().positive(),
    linear_num_value_heads: size,
    linear_num_key_heads: size,
    linear_key_head_dim: size,
    linear_value_head_dim: size,
    linear_conv_kernel_dim: size,
    num_experts: count,
    norm_topk_prob: z.boolean().default(false),
    /** Every how many layers the MLP is one of experts. */
    decoder_sparse_step: size.default(1),
    mlp_only_layers: z.array(count).default([]),
  })
  .superRefine(checkHeads)
  .superRefine(checkHybrid);

type Args = z.infer<typeof Args>;

export class Model extends HybridLM {
  constructor(args: Args) {
    const { num_experts: experts, decoder_sparse_step: step, mlp_only_layers: dense } = args;
    const isSparse = (index: number) => experts > 0 && (index + 1) % step === 0 && !dense.includes(index);
    super(args, {
      delta: () => new GroupedDeltaNet(deltaSizes(args)),
      mlp: (index) => feedForward(args, isSparse(index)),
    });
  }
}

export { keepsDtype, mtp, quantize } from "./qwen3_5";

export const joins: Joins = [...usualJoins, ["in_proj_qkvz", "in_proj_ba"]];

export const gguf = qwen3Next();

export const awq = blockAwq({ attention: ["self_attn", "linear_attn"] });
