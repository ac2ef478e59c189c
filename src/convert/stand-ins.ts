/** In place of tensors whose file is not here: of the same shape and dtype, and never computed, for another process has them. */
import type { Dtype, Tensor } from "../mlx";
import * as mx from "../mlx";
import type { SafetensorsHeader } from "../mlx/safetensors-header";

/** As MLX reads them: it has no numbers of 8 bits. */
const dtypes: Readonly<Record<string, Dtype>> = {
  ...{ BOOL: "bool", F64: "float64", F32: "float32", F16: "float16", BF16: "bfloat16", C64: "complex64" },
  ...{ I8: "int8", I16: "int16", I32: "int32", I64: "int64", U8: "uint8", U16: "uint16", U32: "uint32", U64: "uint64" },
  ...{ F8_E4M3: "uint8", F8_E5M2: "uint8", F8_E8M0: "uint8" },
};

/** Lazy. One that is used after all is noticed: it is not a number. */
export function standIns({ tensors }: SafetensorsHeader): [name: string, tensor: Tensor][] {
  return [...tensors].map(([name, { dtype, shape }]) => {
    const own = dtypes[dtype]!;
    return [name, mx.full(shape, mx.isFloating(own) ? Number.NaN : 0, own)];
  });
}
