/** Fused models against those that `mlx_lm.fuse` saves. */
import { afterAll, expect, test } from "bun:test";
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fixture } from "../../test/parity/fixtures";
import { weight } from "../../test/parity/weights";
import { loadModel, openWeights } from "../convert/load";
import { readConfig } from "../convert/source";
import * as mx from "../mlx";
import { dequantize } from "../nn";
import { writeAdapterConfig, writeAdapterWeights } from "./adapter-files";
import { fuseModel } from "./fuse";
import { linearToLora, trainableParameters } from "./linear-to-lora";

interface Row {
  kind: "lora" | "dora";
  parameters: { rank: number; scale: number; dropout: number; keys: string[] };
  dequantize: boolean;
  adapter: Record<string, number[]>;
  quantization: object | null;
  tensors: Record<string, [dtype: string, shape: number[], meanSquare: number, eighth: number]>;
}

const rows = fixture<Row[]>("tune-fuse.json");
const source = join(import.meta.dir, "../../test/fixtures/checkpoint");
const folder = mkdtempSync(join(tmpdir(), "mlxlm-fuse-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** The oracle's adapter: weights by formula, the lengths of rows a quarter longer than the base's. */
async function writeAdapter(target: string, { kind, parameters, adapter }: Row): Promise<void> {
  const { model } = await openWeights(source, await readConfig(source));
  model.freeze();
  linearToLora(model, 1, { ...parameters, dora: kind === "dora" });
  const values = mx.scope(() =>
    trainableParameters(model).map(([path, x]): [string, mx.Tensor] => [
      path,
      path.endsWith(".m") ? x.multiply(1.25) : mx.array(weight(path, x.shape, 5), "float32", x.shape),
    ]),
  );
  expect(Object.fromEntries(values.map(([path, { shape }]) => [path, [...shape]]))).toEqual(adapter);
  await writeAdapterWeights(join(target, "adapters.safetensors"), values);
  await writeAdapterConfig(target, { fine_tune_type: kind, num_layers: 1, lora_parameters: parameters });
  for (const [, tensor] of values) tensor.dispose();
  model.dispose();
}

for (const [i, row] of rows.entries()) {
  const title = `${row.kind}${row.dequantize ? ", dequantized" : ""}`;
  test(`${title}: the saved tensors are mlx-lm's`, async () => {
    mx.eval(mx.random.state.get());
    const before = mx.liveHandles();
    const adapter = join(folder, `adapter-${i}`);
    const target = join(folder, `fused-${i}`);
    await writeAdapter(adapter, row);
    const stages: string[] = [];
    const { dequantize } = row;
    const fused = await fuseModel({ path: source }, adapter, target, { dequantize, onStage: (x) => stages.push(x) });
    expect(stages).toEqual(["Loading pretrained model", ...(dequantize ? ["Dequantizing model"] : [])]);
    expect(fused.adapters).toBe(row.parameters.keys.length);
    expect((await readConfig(target)).quantization ?? null).toEqual(row.quantization);

    const { arrays } = mx.loadSafetensors(join(target, "model.safetensors"));
    expect([...arrays.keys()].sort()).toEqual(Object.keys(row.tensors));
    mx.scope(() => {
      for (const [path, [dtype, shape, square, eighth]] of Object.entries(row.tensors)) {
        const tensor = arrays.get(path)!;
        const packed = tensor.dtype === "uint32";
        const part = (name: string) => arrays.get(path.replace(/weight$/, name))!;
        const dense = packed
          ? mx.dequantize(tensor, part("scales"), part("biases"), { groupSize: 64, bits: 4 })
          : tensor;
        expect([path, [...tensor.shape]]).toEqual([path, shape]);
        // The base's dtype is kept, where mlx-lm's DoRA widens to float32.
        if (row.kind !== "dora") expect([path, tensor.dtype as string]).toEqual([path, dtype]);
        const wide = dense.astype("float32");
        const tolerance = row.kind === "dora" ? 1e-2 : 1e-3;
        expect([path, Math.abs(wide.square().mean().item() / square - 1) < tolerance]).toEqual([path, true]);
        const step = packed ? Math.sqrt(square) : tolerance;
        expect([path, Math.abs(wide.flatten().at(7).item() - eighth) <= step * Math.max(1, Math.abs(eighth))]).toEqual([
          path,
          true,
        ]);
      }
    });
    for (const tensor of arrays.values()) tensor.dispose();
    expect(mx.liveHandles()).toBe(before);
    const loaded = await loadModel(target);
    loaded.model.dispose();
  });
}

test("nothing is saved where the adapter is missing or the folder is taken", async () => {
  const target = join(folder, "none");
  const before = mx.liveHandles();
  expect(fuseModel({ path: source }, join(folder, "nowhere"), target)).rejects.toThrow("no adapter folder");
  await fuseModel({ path: source }, join(folder, "nowhere"), target).catch(() => {});
  expect(existsSync(target)).toBe(false);
  const taken = fuseModel({ path: source }, join(folder, "adapter-0"), folder);
  await expect(taken).rejects.toThrow("exists already");
  expect(mx.liveHandles()).toBe(before);
});

test("a GGUF file beside it has the same weights", async () => {
  const adapter = join(folder, "adapter-0");
  const target = join(folder, "with-gguf");
  await writeAdapter(adapter, rows[0]!);
  const before = mx.liveHandles();
  const stages: string[] = [];
  await fuseModel({ path: source }, adapter, target, {
    gguf: { path: "model.gguf", type: "F16" },
    onStage: (line) => stages.push(line),
  });
  const file = join(target, "model.gguf");
  expect(stages.slice(1)).toEqual(["Converting to GGUF format", `Converted GGUF model saved as: ${file}`]);
  const saved = await openWeights(target, await readConfig(target));
  dequantize(saved.model);
  const { model } = await openWeights(file, await readConfig(file));
  const found = new Map(model.namedParameters());
  mx.scope(() => {
    for (const [path, expected] of saved.model.namedParameters()) {
      const difference = found.get(path)!.astype("float32").subtract(expected.astype("float32"));
      expect([path, difference.abs().max().item() < 1e-3]).toEqual([path, true]);
    }
  });
  model.dispose();
  saved.model.dispose();
  expect(mx.liveHandles()).toBe(before);
});

test("an architecture that GGUF has no names for is refused before anything is saved", async () => {
  const other = join(folder, "other");
  cpSync(source, other, { recursive: true });
  const config = { ...JSON.parse(readFileSync(join(other, "config.json"), "utf8")), model_type: "gptj" };
  writeFileSync(join(other, "config.json"), JSON.stringify(config));
  const target = join(folder, "refused");
  const gguf = { path: "model.gguf", type: "F16" } as const;
  await expect(fuseModel({ path: other }, join(folder, "adapter-0"), target, { gguf })).rejects.toThrow(/gptj/);
  expect(existsSync(target)).toBe(false);
});
