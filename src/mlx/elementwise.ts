/** Elementwise operations. Operands are broadcast against each other. */
import { codeOf, type Dtype } from "./dtype";
import * as abi from "./generated/ops";
import type { Handle } from "./native";
import { type Operand, operandHandle, tensorOf, wrap, wrapAll } from "./operand";
import type { Tensor } from "./tensor";

type Unary = (x: Operand) => Tensor;
type Binary = (a: Operand, b: Operand) => Tensor;

function unary(op: (a: Handle) => Handle): Unary {
  return (x) => wrap(op(tensorOf(x).handle));
}

function binary(op: (a: Handle, b: Handle) => Handle): Binary {
  return (a, b) => wrap(op(operandHandle(a, b), operandHandle(b, a)));
}

export const abs = unary(abi.abs);
export const negative = unary(abi.negative);
export const sign = unary(abi.sign);
export const reciprocal = unary(abi.reciprocal);
export const floor = unary(abi.floor);
export const ceil = unary(abi.ceil);
export const trunc = unary(abi.trunc);
export const square = unary(abi.square);
export const sqrt = unary(abi.sqrt);
export const rsqrt = unary(abi.rsqrt);
export const exp = unary(abi.exp);
export const expm1 = unary(abi.expm1);
export const log = unary(abi.log);
export const log2 = unary(abi.log2);
export const log10 = unary(abi.log10);
export const log1p = unary(abi.log1p);
export const sigmoid = unary(abi.sigmoid);
export const erf = unary(abi.erf);
export const erfinv = unary(abi.erfinv);
export const sin = unary(abi.sin);
export const cos = unary(abi.cos);
export const tan = unary(abi.tan);
export const arcsin = unary(abi.arcsin);
export const arccos = unary(abi.arccos);
export const arctan = unary(abi.arctan);
export const sinh = unary(abi.sinh);
export const cosh = unary(abi.cosh);
export const tanh = unary(abi.tanh);
export const arcsinh = unary(abi.arcsinh);
export const arccosh = unary(abi.arccosh);
export const arctanh = unary(abi.arctanh);
export const degrees = unary(abi.degrees);
export const radians = unary(abi.radians);
export const conjugate = unary(abi.conjugate);
export const real = unary(abi.real);
export const imag = unary(abi.imag);
export const logicalNot = unary(abi.logical_not);
export const bitwiseInvert = unary(abi.bitwise_invert);
export const isnan = unary(abi.isnan);
export const isinf = unary(abi.isinf);
export const isfinite = unary(abi.isfinite);
export const isposinf = unary(abi.isposinf);
export const isneginf = unary(abi.isneginf);
export const toFp8 = unary(abi.to_fp8);

/** The value, as a constant for gradients. */
export const stopGradient = unary(abi.stop_gradient);

export const add = binary(abi.add);
export const subtract = binary(abi.subtract);
export const multiply = binary(abi.multiply);
export const divide = binary(abi.divide);
export const floorDivide = binary(abi.floor_divide);
export const remainder = binary(abi.remainder);
export const power = binary(abi.power);
export const maximum = binary(abi.maximum);
export const minimum = binary(abi.minimum);
export const arctan2 = binary(abi.arctan2);
export const logaddexp = binary(abi.logaddexp);
export const equal = binary(abi.equal);
export const notEqual = binary(abi.not_equal);
export const greater = binary(abi.greater);
export const greaterEqual = binary(abi.greater_equal);
export const less = binary(abi.less);
export const lessEqual = binary(abi.less_equal);
export const logicalAnd = binary(abi.logical_and);
export const logicalOr = binary(abi.logical_or);
export const logicalXor = binary(abi.logical_xor);
export const bitwiseAnd = binary(abi.bitwise_and);
export const bitwiseOr = binary(abi.bitwise_or);
export const bitwiseXor = binary(abi.bitwise_xor);
export const leftShift = binary(abi.left_shift);
export const rightShift = binary(abi.right_shift);

/** Quotient and remainder. */
export function divmod(a: Operand, b: Operand): [Tensor, Tensor] {
  return wrapAll(abi.divmod(operandHandle(a, b), operandHandle(b, a))) as [Tensor, Tensor];
}

export function round(x: Tensor, decimals = 0): Tensor {
  return wrap(abi.round(x.handle, decimals));
}

/** Limits each element to [min, max]; either may be null. */
export function clip(x: Tensor, min: Operand | null, max: Operand | null): Tensor {
  const bound = (value: Operand | null) => (value === null ? null : operandHandle(value, x));
  return wrap(abi.clip(x.handle, bound(min), bound(max)));
}

/** Elements of `x` where `condition` holds, else of `y`. */
export function where(condition: Operand, x: Operand, y: Operand): Tensor {
  return wrap(abi.where(tensorOf(condition).handle, operandHandle(x, y), operandHandle(y, x)));
}

export function nanToNum(x: Tensor, options: { nan?: number; posinf?: number; neginf?: number } = {}): Tensor {
  return wrap(abi.nan_to_num(x.handle, options.nan ?? 0, options.posinf ?? null, options.neginf ?? null));
}

export interface Tolerance {
  rtol?: number;
  atol?: number;
  equalNan?: boolean;
}

export function isclose(
  a: Operand,
  b: Operand,
  { rtol = 1e-5, atol = 1e-8, equalNan = false }: Tolerance = {},
): Tensor {
  return wrap(abi.isclose(operandHandle(a, b), operandHandle(b, a), rtol, atol, equalNan));
}

/** Whether all elements are close, as a bool scalar tensor. */
export function allclose(
  a: Operand,
  b: Operand,
  { rtol = 1e-5, atol = 1e-8, equalNan = false }: Tolerance = {},
): Tensor {
  return wrap(abi.allclose(operandHandle(a, b), operandHandle(b, a), rtol, atol, equalNan));
}

/** Whether shapes and all elements are equal, as a bool scalar tensor. */
export function arrayEqual(a: Operand, b: Operand, { equalNan = false } = {}): Tensor {
  return wrap(abi.array_equal(operandHandle(a, b), operandHandle(b, a), equalNan));
}

export function astype(x: Tensor, dtype: Dtype): Tensor {
  return wrap(abi.astype(x.handle, codeOf(dtype)));
}

/** The same bytes read as another dtype; the last axis shrinks or grows with the item size. */
export function view(x: Tensor, dtype: Dtype): Tensor {
  return wrap(abi.view(x.handle, codeOf(dtype)));
}

/** E4M3 bytes (uint8) as floats. */
export function fromFp8(x: Tensor, dtype: Dtype = "bfloat16"): Tensor {
  return wrap(abi.from_fp8(x.handle, codeOf(dtype)));
}
