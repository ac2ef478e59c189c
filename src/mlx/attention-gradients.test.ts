/** Attention while a gradient is taken: in half precision in steps of ours on the CPU, in float32 always as MLX does it. */
import { expect, test } from "bun:test";
import * as mx from ".";

type Half = "bfloat16" | "float16";
const roundings = { bfloat16: 2 ** -8, float16: 2 ** -11 } as const;
const draw = (...shape: number[]) => mx.random.normal({ shape }).astype("bfloat16");

const masks: [name: string, mask: () => mx.Tensor | "causal" | null][] = [
  ["none", () => null],
  ["causal", () => "causal"],
  ["boolean", () => mx.random.bernoulli(0.6, { shape: [2, 1, 5, 9] }).logicalOr(mx.arange(9).equal(4))],
  ["additive, a head each", () => draw(6, 5, 9)],
];

for (const dtype of ["bfloat16", "float16"] as const satisfies Half[]) {
  for (const heads of [2, 6]) {
    for (const [name, makeMask] of masks) {
      for (const sunk of [false, true]) {
        test(`${dtype}, ${heads} heads of keys to 6, mask: ${name}${sunk ? ", sinks" : ""}`, () => {
          mx.random.seed(7);
          const before = mx.liveHandles();
          mx.scope(() => {
            const mask = makeMask();
            const [k, v] = [draw(2, heads, 9, 16), draw(2, heads, 9, 16)];
            // Transposed, as a layer's queries are.
            const q = draw(2, 5, 6, 16).swapaxes(1, 2);
            const args = [q, k, v, ...(sunk ? [draw(6)] : [])];
            const cotangent = draw(2, 6, 5, 16);
            const run = (type: "float32" | Half) => {
              const typed = (x: mx.Tensor) => x.astype(type);
              const values = mask instanceof mx.Tensor && mask.dtype !== "bool" ? typed(mask) : mask;
              const attend = (q: mx.Tensor, k: mx.Tensor, v: mx.Tensor, sinks?: mx.Tensor) =>
                mx.fast.scaledDotProductAttention(q, k, v, { scale: 0.25, mask: values, sinks: sinks ?? null });
              const [outputs, gradients] = mx.vjp(attend, args.map(typed), [typed(cotangent)]);
              return [...outputs, ...gradients];
            };
            const exact = run("float32");
            for (const [i, got] of run(dtype).entries()) {
              const wanted = exact[i]!;
              expect(got.dtype).toBe(dtype);
              expect(got.shape).toEqual(wanted.shape);
              const off = got.astype("float32").subtract(wanted).abs().max().item() / wanted.abs().max().item();
              expect(off).toBeLessThan(4 * roundings[dtype]);
            }
          });
          expect(mx.liveHandles()).toBe(before);
        });
      }
    }
  }
}
