/** The logits that test/oracle/samplers.py works on. */
import * as mx from "../../src/mlx";

/** (2, 32), no two alike in a row. */
export function batch(dtype: mx.Dtype): mx.Tensor {
  const values = Array.from({ length: 64 }, (_, i) => Math.fround(((i * 29) % 67) / 12) - 2.5);
  return mx.array(values, "float32", [2, 32]).astype(dtype);
}

/** Python's names of options as ours. */
export function camelCase(options: Record<string, unknown>): Record<string, unknown> {
  const rename = (name: string) => name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());
  return Object.fromEntries(Object.entries(options).map(([name, value]) => [rename(name), value]));
}
