/** Qwen 3.5's mixture of experts: Qwen 3.5, in checkpoints that have the experts' first two projections as one tensor. */
import type { Tensor } from "../mlx";
import { blockAwq } from "./awq-facts";
import { qwen35 } from "./gguf/qwen35";
import * as qwen3_5 from "./qwen3_5";

export const Args = qwen3_5.Args;

export class Model extends qwen3_5.Model {
  /** Splits `gate_up_proj` (E, 2 N, K), and names the stacked experts as the layers that take them. */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const split = new Map<string, Tensor>();
    for (const [name, weight] of weights) {
      const [path, part] = name.split(".experts.") as [string, string?];
      const to = `${path}.switch_mlp`;
      if (part === "gate_up_proj") {
        const [gate, up] = weight.split(2, -2) as [Tensor, Tensor];
        split.set(`${to}.gate_proj.weight`, gate).set(`${to}.up_proj.weight`, up);
      } else if (part === "down_proj") split.set(`${to}.down_proj.weight`, weight);
      else split.set(name, weight);
    }
    return super.sanitize(split);
  }
}

export const { quantize, keepsDtype, joins } = qwen3_5;

export const gguf = qwen35("qwen35moe");

export const awq = blockAwq({ inner: "language_model", attention: ["self_attn", "linear_attn"] });
