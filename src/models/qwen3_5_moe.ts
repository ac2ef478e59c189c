/** Qwen 3.5's mixture of experts: Qwen 3.5, in checkpoints that have the experts' first two projections as one tensor. */
import type { Tensor } from "../mlx";
import { blockAwq } from "./awq-facts";
import { qwen35 } from "./gguf/qwen35";
import * as qwen3_5 from "./qwen3_5";

export const Args = qwen3_5.Args;

export class Model extends qwen3_5.Model {
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    return super.sanitize(qwen3_5.splitGates(weights));
  }
}

export const { quantize, keepsDtype, joins, mtp } = qwen3_5;

export const gguf = qwen35("qwen35moe");

export const awq = blockAwq({ inner: "language_model", attention: ["self_attn", "linear_attn"] });
