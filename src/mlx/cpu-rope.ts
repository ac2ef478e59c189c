/**
 * Rotary embedding on the CPU by operations, for what our kernel (vendor/mlx/src/cpu) does not take: while a gradient is
 * traced, or with the kernels off. MLX's own form computes sines and cosines anew in every layer and takes some twenty
 * primitives. This one shares them between the layers of a step and takes eight, with the same bits.
 */
import { arange } from "./creation";
import type { Dtype } from "./dtype";
import { add, astype, cos, exp, multiply, negative, reciprocal, sin } from "./elementwise";
import { indexInto, slice } from "./indexing";
import { currentScope } from "./open-scopes";
import { concatenate, expandDims, flatten, unflatten } from "./shaping";
import type { Tensor } from "./tensor";

export interface Angles {
  base: number | null;
  scale: number;
  /** Of the first row, or of each: (B, T). */
  offset: number | Tensor;
  freqs: Tensor | null;
}

/** (T, 2, D/2) each, or (B, 1, T, 2, D/2): cosines of both halves, and sines with the sign that each half takes. */
interface Rotation {
  cosines: Tensor;
  sines: Tensor;
}

interface Known extends Angles, Rotation {
  dims: number;
  length: number;
  dtype: Dtype;
}

/** Rotations made in the scope that is open. They are freed with it, so they are forgotten when another one is. */
let known: Known[] = [];
let knownIn = 0;

function rotationOf(dims: number, length: number, dtype: Dtype, angles: Angles): Rotation {
  const scope = currentScope();
  if (scope !== knownIn) {
    known = [];
    knownIn = scope;
  }
  const { base, scale, offset, freqs } = angles;
  for (const one of known) {
    const same = one.offset === offset && one.length === length && one.dims === dims && one.dtype === dtype;
    if (same && one.base === base && one.scale === scale && one.freqs === freqs) return one;
  }
  const half = dims / 2;
  const places =
    typeof offset === "number"
      ? add(arange(length, undefined, 1, { dtype: "float32" }), offset)
      : expandDims(offset, 1);
  const positions = multiply(astype(places, "float32"), scale);
  const inverse = freqs
    ? reciprocal(astype(freqs, "float32"))
    : exp(multiply(arange(0, -half, -1, { dtype: "float32" }), Math.fround(Math.log(Math.fround(base!))) / half));
  const theta = expandDims(multiply(expandDims(positions, -1), inverse), -2);
  const [cosine, sine] = [astype(cos(theta), dtype), astype(sin(theta), dtype)];
  const rotation = {
    cosines: concatenate([cosine, cosine], { axis: -2 }),
    sines: concatenate([negative(sine), sine], { axis: -2 }),
  };
  if (scope !== 0) known.push({ dims, length, dtype, ...angles, ...rotation });
  return rotation;
}

/** x (B, H, T, D): the halves of the first `dims` features, turned against each other by position. */
export function rotateHalves(x: Tensor, dims: number, angles: Angles): Tensor {
  const whole = x.dim(-1) === dims;
  const rotated = whole ? x : indexInto(x, ["...", slice(0, dims)]);
  const { cosines, sines } = rotationOf(dims, x.dim(2), x.dtype, angles);
  const halves = unflatten(rotated, -1, [2, dims / 2]);
  const swapped = indexInto(halves, ["...", slice(null, null, -1), ":"]);
  const turned = flatten(add(multiply(halves, cosines), multiply(swapped, sines)), -2, -1);
  return whole ? turned : concatenate([turned, indexInto(x, ["...", slice(dims)])], { axis: -1 });
}
