/** Gates of feed-forward blocks: an activation of one half times the other. */
import { compile } from "./compile";
import { ones } from "./creation";
import { defaultDevice } from "./devices";
import * as abi from "./generated/ops";
import { wrap } from "./operand";
import { broadcastTo } from "./shaping";
import type { Tensor } from "./tensor";

/** GELU by tanh, off by less than 0.0005 on [−6, 6]. Hendrycks & Gimpel 2016, arXiv:1606.08415. */
export const geluApprox = compile(
  (x: Tensor): Tensor => {
    const inner = x.add(x.power(3).multiply(0.044715)).multiply(Math.sqrt(2 / Math.PI));
    return x.multiply(0.5).multiply(inner.tanh().add(1));
  },
  { shapeless: true },
);

const swiglu = compile((gate: Tensor, x: Tensor): Tensor => gate.multiply(gate.sigmoid()).multiply(x), {
  shapeless: true,
});

const swish = compile((x: Tensor): Tensor => x.multiply(x.sigmoid()), { shapeless: true });

/** x σ(x), also called Swish. On a CPU as a gate of ones: MLX's own loop is ten times slower. */
export function silu(x: Tensor): Tensor {
  if (defaultDevice() === "cpu" && x.ndim > 0) {
    const [result] = abi.gate(false, x.handle, broadcastTo(ones([x.dim(-1)], x.dtype), x.shape).handle);
    if (result !== undefined) return wrap(result);
  }
  return swish(x);
}

/** silu(gate) · x or gelu(gate) · x (`geluApprox`), for gate and x (…, N): in one pass over both where there is a kernel. */
export function gated(kind: "silu" | "gelu", gate: Tensor, x: Tensor): Tensor {
  if (defaultDevice() === "cpu") {
    const [result] = abi.gate(kind === "gelu", gate.handle, x.handle);
    if (result !== undefined) return wrap(result);
  }
  return kind === "silu" ? swiglu(gate, x) : geluApprox(gate).multiply(x);
}
