/** GPTQ: its rule beside the plainest form of it, and whole models beside mlx-lm's. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fixture, float32 } from "../../test/parity/fixtures";
import { type FormulaModel, formulaModel } from "../../test/parity/formula-model";
import { formula } from "../../test/parity/tensors";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import { quantize } from "../nn";
import { gptqQuantize } from "./gptq";
import { inverseFactor, quantizeColumns } from "./gptq-columns";
import { packCodes } from "./pack-codes";

const scratch = mkdtempSync(join(tmpdir(), "mlxlm-gptq-"));
afterAll(() => rmSync(scratch, { recursive: true }));
let folders = 0;
const folder = () => mkdtempSync(join(scratch, `${folders++}-`));

type Matrix = number[][];

const rowsOf = (x: mx.Tensor) => x.toList() as Matrix;

/** A⁻¹ by Gauss and Jordan, in double precision. */
function inverse(a: Matrix): Matrix {
  const n = a.length;
  const rows = a.map((row, i) => [...row, ...row.map((_, j) => (i === j ? 1 : 0))]);
  for (let i = 0; i < n; i++) {
    const pivot = rows[i]![i]!;
    rows[i] = rows[i]!.map((value) => value / pivot);
    for (let k = 0; k < n; k++) {
      const factor = rows[k]![i]!;
      if (k !== i && factor !== 0) rows[k] = rows[k]!.map((value, j) => value - factor * rows[i]![j]!);
    }
  }
  return rows.map((row) => row.slice(n));
}

/**
 * The rule itself, without factors, groups or blocks: column by column, what is left of the inverse after those before
 * says how the error goes to every column that follows. Returns the codes.
 */
function byTheRule(weight: Matrix, H: Matrix, bits: number, groupSize: number): Matrix {
  const K = H.length;
  const damping = (0.01 * H.reduce((sum, row, i) => sum + row[i]!, 0)) / K;
  let left = inverse(H.map((row, i) => row.map((value, j) => value + (i === j ? damping : 0))));
  const w = weight.map((row) => [...row]);
  const codes: Matrix = weight.map(() => []);
  let scales: Matrix = [];
  let biases: Matrix = [];
  for (let k = 0; k < K; k++) {
    if (k % groupSize === 0) {
      const group = mx.array(
        w.flatMap((row) => row.slice(k, k + groupSize)),
        "float32",
        [w.length, groupSize],
      );
      const [, s, b] = mx.quantize(group, { bits, groupSize });
      [scales, biases] = [rowsOf(s), rowsOf(b!)];
    }
    for (const [n, row] of w.entries()) {
      const [scale, bias] = [scales[n]![0]!, biases[n]![0]!];
      const code = Math.min(2 ** bits - 1, Math.max(0, Math.round((row[k]! - bias) / scale)));
      codes[n]!.push(code);
      const error = (row[k]! - (code * scale + bias)) / left[0]![0]!;
      for (let j = k; j < K; j++) row[j]! -= error * left[0]![j - k]!;
    }
    // The inverse of what is left of H without this column.
    const [first] = left;
    left = left.slice(1).map((row) => row.slice(1).map((value, j) => value - (row[0]! * first![j + 1]!) / first![0]!));
  }
  return codes;
}

/** Correlated inputs, as a model's are: their H (K, K). */
function moments(K: number): mx.Tensor {
  const x = formula("inputs", [4 * K, K]).matmul(formula("mixing", [K, K]).add(mx.eye(K).multiply(2)));
  return x.T.matmul(x);
}

function unpacked({ weight, scales, biases }: Record<"weight" | "scales" | "biases", mx.Tensor>, how: object) {
  return mx.dequantize(weight, scales, biases, how);
}

/** What the layer's outputs are off by: Σ (Δ H Δᵀ). */
function lossOf(weight: mx.Tensor, rounded: mx.Tensor, H: mx.Tensor): number {
  const change = rounded.subtract(weight);
  return change.matmul(H).multiply(change).sum().item();
}

describe("columns", () => {
  test.each([
    [4, 32],
    [3, 64],
    [2, 128],
    [8, 32],
  ])("in %d bits and groups of %d follow the rule, within groups and beyond", async (bits, groupSize) => {
    const [N, K] = [24, 128];
    const [weight, H] = [formula("weight", [N, K]), moments(K)];
    const R = inverseFactor(H)!;
    const ours = await quantizeColumns(weight, R, { bits, groupSize, dtype: "float32" });
    const expected = mx.array(byTheRule(rowsOf(weight), rowsOf(H), bits, groupSize).flat(), "uint32", [N, K]);
    const codes = unpacked(ours, { bits, groupSize }).reshape(N, -1, groupSize);
    const got = codes.subtract(ours.biases.expandDims(-1)).divide(ours.scales.expandDims(-1)).round().reshape(N, K);
    const differing = got.astype("int32").notEqual(expected.astype("int32")).sum().item();
    // Half a code more or less in float32 may round the other way, and then the columns that follow differ too.
    expect(differing).toBeLessThan(0.02 * N * K);
  });

  test.each([2, 3, 4, 5, 6, 8])("in %d bits lose far less than rounding to nearest", async (bits) => {
    const [N, K, groupSize] = [32, 256, 64];
    const [weight, H] = [formula("weight", [N, K]), moments(K)];
    const R = inverseFactor(H)!;
    const ours = await quantizeColumns(weight, R, { bits, groupSize, dtype: "float32" });
    const [packed, scales, biases] = mx.quantize(weight, { bits, groupSize });
    const nearest = unpacked({ weight: packed, scales, biases: biases! }, { bits, groupSize });
    const gain = lossOf(weight, unpacked(ours, { bits, groupSize }), H) / lossOf(weight, nearest, H);
    expect(gain).toBeLessThan(0.7);
  });

  test("errors are those of the scales that are saved", async () => {
    const [N, K, bits, groupSize] = [32, 128, 8, 64];
    const [weight, H] = [formula("weight", [N, K], 4, 5), moments(K)];
    const R = inverseFactor(H)!;
    const ours = await quantizeColumns(weight, R, { bits, groupSize, dtype: "bfloat16" });
    expect(ours.scales.dtype).toBe("bfloat16");
    const exact = await quantizeColumns(weight, R, { bits, groupSize, dtype: "float32" });
    const late = { ...exact, scales: exact.scales.astype("bfloat16"), biases: exact.biases.astype("bfloat16") };
    const wide = ({ scales, biases, ...rest }: typeof exact) =>
      unpacked({ ...rest, scales: scales.astype("float32"), biases: biases.astype("float32") }, { bits, groupSize });
    expect(lossOf(weight, wide(ours), H)).toBeLessThan(0.5 * lossOf(weight, wide(late), H));
  });

  test("leave nothing behind", async () => {
    const [weight, H] = [formula("weight", [8, 64]), moments(64)];
    const once = async () => {
      const R = inverseFactor(H)!;
      mx.release(Object.values(await quantizeColumns(weight, R, { bits: 4, groupSize: 32, dtype: "float32" })));
      const stopped = { bits: 4, groupSize: 32, dtype: "float32", signal: AbortSignal.abort() } as const;
      await expect(quantizeColumns(weight, R, stopped)).rejects.toThrow("stopped");
      mx.release(R);
    };
    await once();
    const before = mx.liveHandles();
    for (let n = 0; n < 5; n++) await once();
    expect(mx.liveHandles()).toBe(before);
  });
});

describe("the factor", () => {
  test("is upper, and RᵀR is the damped inverse", () => {
    const H = moments(64);
    const R = inverseFactor(H)!;
    expect(R.subtract(mx.triu(R)).abs().max().item()).toBe(0);
    const damped = H.add(mx.eye(64).multiply(mx.diag(H).mean().multiply(0.01)));
    expect(R.T.matmul(R).matmul(damped).subtract(mx.eye(64)).abs().max().item()).toBeLessThan(1e-3);
  });

  test("of inputs that are not finite, or zero, is none", () => {
    expect(inverseFactor(mx.zeros([32, 32]))).toBeNull();
    expect(inverseFactor(mx.eye(32).multiply(Number.NaN))).toBeNull();
    expect(inverseFactor(mx.eye(32).put([3, 3], Number.POSITIVE_INFINITY))).toBeNull();
  });
});

test.each([2, 3, 4, 5, 6, 8])("codes of %d bits lie as MLX packs them", (bits) => {
  const [packed, scales, biases] = mx.quantize(formula("weight", [4, 256]), { bits, groupSize: 64 });
  const values = mx.dequantize(packed, scales, biases!, { bits, groupSize: 64 }).reshape(4, 4, 64);
  const codes = values.subtract(biases!.expandDims(-1)).divide(scales.expandDims(-1)).round().reshape(4, 256);
  expect(packCodes(codes, bits).toList()).toEqual(packed.toList());
});

interface Case extends FormulaModel {
  name: string;
  rows: number[][];
  quantization: Record<string, unknown>;
  scales: Record<string, string>;
  /** Mean squared error of the logits. */
  error: number;
}

interface Fixture {
  options: Record<"bits" | "group_size" | "fallback_bits" | "fallback_group_size", number>;
  models: Case[];
}

const { options, models } = fixture<Fixture>("quant-gptq.json");

const settings = () => ({
  ...{ bits: options.bits, groupSize: options.group_size, work: folder() },
  fallback: { bits: options.fallback_bits, groupSize: options.fallback_group_size },
});

const tokensOf = (rows: number[][]) => mx.array(rows.flat(), "uint32", [rows.length, rows[0]!.length]);

function errorOf(model: LanguageModel, exact: mx.Tensor, rows: number[][]): number {
  return mx.scope(() => model.forward(tokensOf(rows)).subtract(exact).square().mean().item());
}

describe("a model", () => {
  test.each(models.map((one) => [one.name, one] as const))("%s is mlx-lm's", async (_, one) => {
    const [model, plain] = [await formulaModel(one), await formulaModel(one)];
    const exact = mx.scope(() => model.forward(tokensOf(one.rows)));
    mx.eval(exact);
    const seen: number[] = [];
    const config = await gptqQuantize(model, one.config, one.rows, {
      ...settings(),
      onProgress: (done, total) => seen.push(done / total),
    });
    expect(config.quantization).toEqual(one.quantization);
    expect(seen.at(-1)).toBe(1);

    const parameters = new Map(model.namedParameters());
    let [count, off] = [0, 0];
    for (const [name, written] of Object.entries(one.scales)) {
      const expected = float32(written);
      const got = parameters.get(name)!.toArray();
      expect(got.length).toBe(expected.length);
      for (const [i, value] of expected.entries()) {
        count++;
        if (Math.abs(Number(got[i]) - value) > 1e-3 * Math.abs(value)) off++;
      }
    }
    // Where two roundings are equally near, one last bit decides, and the rest of a row follows.
    expect(off / count).toBeLessThan(0.005);
    const error = errorOf(model, exact, one.rows);
    expect(Math.abs(error / one.error - 1)).toBeLessThan(0.05);
    quantize(plain, {
      ...{ bits: options.bits, groupSize: options.group_size },
      predicate: (path, module) =>
        "toQuantized" in module && (path in one.quantization ? { bits: 6, groupSize: 32 } : true),
    });
    expect(error).toBeLessThan(errorOf(plain, exact, one.rows));
    for (const each of [model, plain, exact]) each.dispose();
  });

  test("leaves nothing behind, done or stopped", async () => {
    const one = models.find(({ name }) => name === "mixtral")!;
    const run = async (batches: number) => {
      const model = await formulaModel(one);
      const stop = new AbortController();
      await gptqQuantize(model, one.config, one.rows, {
        ...settings(),
        onProgress: (done) => done >= batches && stop.abort(),
        signal: stop.signal,
      }).catch((error) => expect(error.message).toBe("stopped"));
      model.dispose();
    };
    await run(5);
    const before = mx.liveHandles();
    for (const batches of [1, 4, 9, 1000]) await run(batches);
    expect(mx.liveHandles()).toBe(before);
  });

  test("whose inputs are not finite is refused", async () => {
    const one = models[0]!;
    const model = await formulaModel(one);
    mx.scope(() => model.update([["model.layers.1.input_layernorm.weight", mx.full([64], Number.NaN)]]));
    await expect(gptqQuantize(model, one.config, one.rows, settings())).rejects.toThrow(
      /layers\.1\.self_attn\.q_proj: its inputs .* are not finite/,
    );
    model.dispose();
  });
});
