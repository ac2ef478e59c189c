import { describe, expect, test } from "bun:test";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as mx from ".";

/** Whatever goes wrong in C++ must come back as an error with MLX's text, and the process must live. */
const wrong: [name: string, act: () => unknown, message: RegExp][] = [
  ["shapes that don't broadcast", () => mx.ones([2]).add(mx.ones([3])), /broadcast/i],
  ["matmul of unequal inner sizes", () => mx.ones([2, 3]).matmul(mx.ones([2, 3])), /\[matmul\]/],
  ["reshape to another size", () => mx.ones([6]).reshape(4, 2), /\[reshape\]/],
  ["a missing axis", () => mx.ones([2]).sum({ axis: 3 }), /axis|axes/i],
  ["integer matmul", () => mx.ones([2, 2], "int32").matmul(mx.ones([2, 2], "int32")), /matmul/],
  ["item of many", () => mx.ones([2]).item(), /one element/],
  ["a quantization group that does not fit", () => mx.quantize(mx.ones([4, 33])), /quantize/],
  ["an einsum that makes no sense", () => mx.einsum("ij,jk->", mx.ones([2])), /einsum/],
  ["a kernel for a device that is not there", () => callMetalKernel(), /Metal/],
  ["a kernel for CUDA", () => mx.fast.cudaKernel(emptyKernel), /CUDA/],
  ["a file that is not there", () => mx.loadSafetensors("/nonexistent/x.safetensors"), /x\.safetensors/],
  ["a file of another kind", () => mx.load("weights.txt"), /expected a \.safetensors/],
  ["a NUL in a name", () => mx.saveSafetensors("/tmp/x", new Map([["a\0b", mx.ones([1])]])), /NUL/],
  ["limits of integers", () => mx.finfo("int32"), /floating/],
  ["ragged lists", () => mx.array([[1], [1, 2]]), /equal lengths/],
  ["an index out of bounds", () => mx.ones([3]).at(3), /out of bounds/],
  ["an index out of bounds in a list", () => mx.ones([3]).take([0, -4]), /out of bounds/],
  ["too many indices", () => mx.ones([3]).at(0, 0), /too many indices/],
  ["a zero step", () => mx.ones([3]).at(mx.slice(0, 3, 0)), /step/],
  ["a fraction as an index", () => mx.ones([3]).at(0.5), /out of bounds|integer/],
  ["floats as indices", () => mx.ones([3]).at(mx.array([0.5])), /integers/],
  ["a value that does not fit", () => mx.zeros([2, 2]).put([0], mx.ones([3])), /broadcast|shape/i],
  ["a negative memory limit", () => mx.setMemoryLimit(-1), /memory limit/],
  ["a gradient of a vector", () => mx.grad((x: mx.Tensor) => x.multiply(2))(mx.ones([3])), /\[vjp\]/],
  ["a gradient by nothing", () => mx.grad(() => mx.ones([]))("text"), /no tensor/],
  [
    "an async function under a transform",
    () => mx.grad((async () => mx.ones([])) as never)(mx.ones([1])),
    /synchronous/,
  ],
];

const emptyKernel = { name: "empty", inputNames: ["a"], outputNames: ["b"], source: "b[0] = a[0];" };

function callMetalKernel() {
  return mx.fast.metalKernel(emptyKernel)({
    inputs: [mx.ones([1])],
    outputShapes: [[1]],
    outputDtypes: ["float32"],
    grid: [1, 1, 1],
    threadgroup: [1, 1, 1],
  });
}

describe("errors of the native side", () => {
  test.each(wrong)("%s", (_, act, message) => {
    const before = mx.liveHandles();
    mx.scope(() => expect(act).toThrow(message));
    expect(mx.liveHandles()).toBe(before);
  });

  test("an error at evaluation comes back from the call that evaluates", () => {
    mx.scope(() => {
      const rhsIndices = mx.array([1, 0], "uint32");
      const product = mx.gatherMm(mx.ones([2, 3, 4], "float64"), mx.ones([2, 4, 5], "float64"), { rhsIndices });
      expect(() => mx.eval(product)).toThrow(/GatherMM/);
    });
  });

  test("what a closure throws passes through the native call unchanged", () => {
    const mine = new TypeError("mine");
    const throws = () => {
      throw mine;
    };
    const before = mx.liveHandles();
    for (const act of [
      () => mx.valueAndGrad(throws)(mx.ones([1])),
      () => mx.checkpoint(throws)(mx.ones([1])),
      () => mx.vjp(throws, [mx.ones([1])], [mx.ones([1])]),
      () => mx.vmap(throws)(mx.ones([2])),
    ]) {
      mx.scope(() => expect(act).toThrow(mine));
    }
    expect(mx.liveHandles()).toBe(before);
  });

  test("a throw inside a scope inside a closure leaves no scope open", () => {
    const before = mx.liveHandles();
    mx.scope(() => {
      const inner = () =>
        mx.scope(() => {
          mx.ones([3]);
          throw new Error("deep");
        });
      expect(() => mx.grad(inner as never)(mx.ones([1]))).toThrow("deep");
      mx.ones([5]);
    });
    expect(mx.liveHandles()).toBe(before);
  });

  test("a truncated safetensors file is an error", () => {
    const path = join(mkdtempSync(join(tmpdir(), "mlxlm-")), "short.safetensors");
    writeFileSync(path, new Uint8Array([200, 0, 0, 0, 0, 0, 0, 0, 123]));
    expect(() => mx.loadSafetensors(path)).toThrow();
  });
});
