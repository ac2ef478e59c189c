/** The closing report: its numbers against both models side by side, and what it leaves in memory and on disk. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bytesInUse, countExactBytes } from "../../test/exact-bytes";
import { convertModel } from "../convert/convert";
import { loadModel } from "../convert/load";
import * as mx from "../mlx";
import { crossEntropy } from "../nn";
import { adviceWhereWorse, type Quality, reportQuality } from "./quality-report";

countExactBytes();

const scratch = mkdtempSync(join(tmpdir(), "mlxlm-quality-"));
const [source, quantized] = [join(scratch, "source"), join(scratch, "quantized")];
const rows = Array.from({ length: 3 }, (_, i) => Array.from({ length: 40 }, (_, t) => (17 * i + t * t) % 90));

beforeAll(async () => {
  const packed = join(import.meta.dir, "../../test/fixtures/checkpoint");
  await convertModel({ path: packed }, source, { dequantize: true, dtype: "float32" });
  await convertModel({ path: source }, quantized, { quantize: { bits: 3, groupSize: 32 } });
});
afterAll(() => rmSync(scratch, { recursive: true }));

const plain = [{ name: "plain", quantization: { bits: 3, group_size: 32 } }];
const options = { source, quantized, name: "method", plain, rows, heldOut: true };

test("perplexity and divergence are those of the models side by side", async () => {
  const { models, tokens } = await reportQuality(options);
  expect(tokens).toBe(120);
  expect(models.map(({ name }) => name)).toEqual(["original", "method", "plain"]);
  const [a, b] = [await loadModel(source), await loadModel(quantized)];
  const [loss, divergence] = mx.scope(() => {
    const tokens = mx.array(rows.flat(), "uint32", [3, 40]);
    const [p, q] = [a, b].map(({ model }) => model.forward(tokens));
    const [logP, logQ] = [p!, q!].map((x) => mx.log(mx.softmax(x, { axis: -1 })));
    const kl = logP!.exp().multiply(logP!.subtract(logQ!)).sum({ axis: -1 }).mean().item();
    return [
      crossEntropy(q!.at(":", mx.slice(0, -1)), tokens.at(":", mx.slice(1)))
        .mean()
        .item(),
      kl,
    ];
  });
  a.model.dispose();
  b.model.dispose();
  const [original, method, again] = models;
  expect(original!.kl_divergence).toBe(0);
  expect(method!.kl_divergence).toBeGreaterThan(1e-4);
  expect(Math.abs(method!.kl_divergence / divergence - 1)).toBeLessThan(1e-3);
  expect(Math.abs(Math.log(method!.perplexity) / loss - 1)).toBeLessThan(1e-5);
  expect({ ...again, name: "method" }).toEqual(method!);
});

test("holds one model at a time, and leaves neither tensors nor files", async () => {
  const [live, active] = [mx.liveHandles(), bytesInUse()];
  const folder = `${quantized}.report`;
  // What a killed run left is not taken for this one's.
  mkdirSync(folder);
  writeFileSync(join(folder, "0.safetensors"), "half");
  mx.resetPeakMemory();
  const many = Array.from({ length: 12 }, () => ({ name: "plain", quantization: { bits: 8, group_size: 32 } }));
  const [original, ...others] = (await reportQuality({ ...options, plain: many })).models;
  const logits = 40 * 384 * 4;
  const together = others.reduce((sum, { size }) => sum + size, original!.size);
  // Beside a model: its logits, the original's, and what is made of them.
  const atOnce = original!.size + 12 * logits;
  expect(together).toBeGreaterThan(1.5 * atOnce);
  expect(mx.peakMemory() - active).toBeLessThan(atOnce);
  expect([mx.liveHandles(), bytesInUse()]).toEqual([live, active]);
  expect(existsSync(folder)).toBe(false);

  const stop = new AbortController();
  const onRow = (done: number) => done === 4 && stop.abort();
  await expect(reportQuality({ ...options, onRow, signal: stop.signal })).rejects.toThrow("stopped");
  expect([mx.liveHandles(), existsSync(folder)]).toEqual([live, false]);
});

describe("a model that is worse than plain rounding", () => {
  const model = (name: string, kl_divergence: number, bits_per_weight: number): Quality => {
    return { name, kl_divergence, bits_per_weight, perplexity: 9, size: 1 };
  };
  const advice = (...models: Quality[]) =>
    adviceWhereWorse({ held_out: true, rows: 1, tokens: 1, models: [model("original", 0, 16), ...models] });

  test("is said to be, with what to change", () => {
    expect(advice(model("dwq", 0.2, 4.5), model("plain affine", 0.1, 4.5))).toBe(
      "dwq came out worse than plain affine (mean KL 0.20000, not 0.10000). Try a lower --learning-rate, more --num-samples, or data like what the model is for (--data-path); or take plain rounding: mlxlm convert -q",
    );
  });

  test("is measured by those of no more bits, and beyond noise", () => {
    expect(advice(model("awq", 0.1, 4.5), model("plain affine", 0.2, 4.5))).toBeNull();
    expect(advice(model("awq", 0.1001, 4.5), model("plain affine", 0.1, 4.5))).toBeNull();
    const dynamic = model("dynamic_quant", 0.1, 4.8);
    expect(
      advice(dynamic, model("plain affine 4/5 bits", 0.12, 4.8), model("plain affine 5 bits", 0.05, 5.5)),
    ).toBeNull();
    expect(advice(dynamic, model("plain affine 4 bits", 0.05, 4.5))).toContain("larger --target-bpw");
  });
});
