/** The divergence in parts is the one by the definition, in either pass, and parts are all that it takes of memory. */
import { expect, test } from "bun:test";
import { bytesInUse, countExactBytes } from "../../test/exact-bytes";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { klDivergence } from "./kl-divergence";

countExactBytes();

type Divergence = (student: Tensor, teacher: Tensor) => Tensor;

const logits = (shape: number[], seed: number, dtype: mx.Dtype = "float32") =>
  mx.random.normal({ shape, scale: 3, key: mx.random.key(seed), dtype });

/** By the definition, all at once. */
const whole =
  (temperature: number): Divergence =>
  (student, teacher) => {
    const [q, p] = [student, teacher].map((x) => mx.softmax(x.astype("float32").divide(temperature), { axis: -1 }));
    return p!.multiply(mx.log(p!).subtract(mx.log(q!))).sum({ axis: -1 });
  };

/** The divergence at each position, and the gradient of a sum in which positions weigh differently. */
function bothPasses(of: Divergence, student: Tensor, teacher: Tensor): [Tensor, Tensor] {
  const weighted = (x: Tensor) => {
    const each = of(x, teacher);
    return each.multiply(mx.arange(1, each.size + 1).reshape(each.shape)).sum();
  };
  return [of(student, teacher), mx.grad(weighted)(student) as Tensor];
}

test.each([
  ["one part", [2, 5, 7], 2 ** 22, 1],
  ["parts of several positions", [3, 11, 40], 160, 2],
  ["positions larger than a part", [1, 3, 50], 20, 2],
])("%s", (_, shape, most, temperature) => {
  mx.eval(mx.random.state.get());
  const [live, functions] = [mx.liveHandles(), mx.liveFunctions()];
  mx.scope(() => {
    const [student, teacher] = [logits(shape, 1), logits(shape, 2)];
    const got = bothPasses((a, b) => klDivergence(a, b, { temperature, most }), student, teacher);
    const wanted = bothPasses(whole(temperature), student, teacher);
    for (const [i, tensor] of got.entries()) {
      expect(tensor.shape).toEqual(wanted[i]!.shape);
      expect(mx.allclose(tensor, wanted[i]!, { rtol: 1e-4, atol: 1e-5 }).item()).toBe(1);
    }
  });
  expect([mx.liveHandles(), mx.liveFunctions()]).toEqual([live, functions]);
});

test("half precision: the gradient has the student's dtype, and the sums are float32", () => {
  mx.scope(() => {
    const [student, teacher] = [logits([2, 3, 64], 1, "bfloat16"), logits([2, 3, 64], 2, "bfloat16")];
    const [losses, gradient] = bothPasses((a, b) => klDivergence(a, b, { most: 100 }), student, teacher);
    const [wanted, slope] = bothPasses(whole(1), student, teacher);
    expect([losses.dtype, gradient.dtype]).toEqual(["float32", "bfloat16"]);
    expect(mx.allclose(losses, wanted, { rtol: 1e-4, atol: 1e-5 }).item()).toBe(1);
    expect(mx.allclose(gradient, slope, { rtol: 1e-2, atol: 1e-4 }).item()).toBe(1);
  });
});

test("parts take less memory than all at once", () => {
  const [student, teacher] = mx.scope(() => [logits([1, 512, 4096], 1), logits([1, 512, 4096], 2)]);
  mx.eval(student!, teacher!);
  const peak = (most: number) => {
    mx.resetPeakMemory();
    const before = bytesInUse();
    mx.scope(() => mx.eval(bothPasses((a, b) => klDivergence(a, b, { most }), student!, teacher!)));
    return (mx.peakMemory() - before) / student!.nbytes;
  };
  const [parts, all] = [peak(2 ** 15), peak(2 ** 30)];
  expect(all).toBeGreaterThan(6);
  // The gradient, its parts, and some that MLX has begun meanwhile.
  expect(parts).toBeLessThan(3.5);
  for (const tensor of [student!, teacher!]) tensor.dispose();
});
