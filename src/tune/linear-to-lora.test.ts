/** Models with adapters against mlx-lm's: what is adapted, what a seed draws, logits and greedy text. */
import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bytesInUse, countExactBytes } from "../../test/exact-bytes";
import { decode, row as idRow } from "../../test/parity/decode";
import { expectValues, fixture, float32 } from "../../test/parity/fixtures";
import { type FormulaModel, formulaModel } from "../../test/parity/formula-model";
import { weight } from "../../test/parity/weights";
import { tinyModel } from "../../test/tiny-model";
import { UserError } from "../errors";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import { fuseProjections, holdTransposes, quantize } from "../nn";
import { applyAdapters, resumeWeights, writeAdapterConfig, writeAdapterWeights } from "./adapter-files";
import { fuseAdapters } from "./fuse";
import {
  type AdapterOptions,
  checkAdapterRoom,
  linearToLora,
  trainableLine,
  trainableParameters,
  unfreezeBlocks,
} from "./linear-to-lora";

countExactBytes();

interface Row {
  name: string;
  kind: "lora" | "dora";
  num_layers: number;
  parameters: { rank: number; scale: number; dropout: number; keys?: string[] };
  quantized: boolean;
  trainable: Record<string, number[]>;
  line: string;
  drawn: Record<string, number>;
  logits: string;
  greedy: number[];
}

type Fixture = FormulaModel & { prompt: number[]; columns: number };

const rows = fixture<Row[]>("tune-models.json");
const salt = 5;

/** A model of the fixtures, as it is after loading: projections joined, all frozen. */
async function base({ name, quantized }: Pick<Row, "name" | "quantized">): Promise<LanguageModel> {
  const model = await formulaModel(fixture<Fixture>(`models/${name}.json`));
  if (quantized) mx.scope(() => quantize(model, { groupSize: 32, bits: 4 }));
  fuseProjections(model);
  holdTransposes(model);
  mx.eval(model.parameters());
  model.freeze();
  return model;
}

const optionsOf = ({ parameters, kind }: Row): AdapterOptions => ({ ...parameters, dora: kind === "dora" });

/** The row's adapters with weights by formula. */
function fill(model: LanguageModel): void {
  mx.scope(() =>
    model.update(
      trainableParameters(model)
        .filter(([name]) => !name.endsWith(".m"))
        .map(([name, { shape }]) => [name, mx.array(weight(name, shape, salt), "float32", shape).multiply(0.3)]),
    ),
  );
}

const folder = mkdtempSync(join(tmpdir(), "mlxlm-tune-"));
afterAll(() => rmSync(folder, { recursive: true }));

for (const row of rows) {
  const { name, kind, quantized } = row;
  test(`${kind} on ${quantized ? "4-bit " : ""}${name}, ${Object.keys(row.drawn).length} layers: as mlx-lm`, async () => {
    const { prompt, columns } = fixture<Fixture>(`models/${name}.json`);
    mx.eval(mx.random.state.get());
    const before = mx.liveHandles();
    const model = await base(row);
    mx.random.seed(7);
    linearToLora(model, row.num_layers, optionsOf(row));
    const shapes = trainableParameters(model).map(([path, { shape }]) => [path, [...shape]] as const);
    expect(Object.fromEntries(shapes)).toEqual(row.trainable);
    expect(trainableLine(model)).toBe(row.line);
    for (const [path, drawn] of Object.entries(row.drawn)) {
      const tensor = trainableParameters(model).find(([each]) => each === path)![1];
      const first = mx.scope(() => tensor.flatten().at(0).item());
      expect(Math.abs(first - drawn)).toBeLessThan(1e-7);
    }
    fill(model);
    mx.scope(() => {
      const logits = model.forward(idRow(prompt)).at(mx.ellipsis, mx.slice(undefined, undefined, columns));
      expectValues(logits.toArray(), float32(row.logits), { tolerance: 1e-4 });
    });
    const left = decodes(model, row, prompt);
    model.dispose();
    expect(mx.liveHandles()).toBe(before + left);
  });
}

/** Checks the greedy text. @returns how many tensors of its cache the decoding leaves to the test */
function decodes(model: LanguageModel, { greedy }: Row, prompt: number[]): number {
  const before = mx.liveHandles();
  expect(decode(model as never, prompt, greedy.length)).toEqual(greedy);
  return mx.liveHandles() - before;
}

test("an adapter's files give the same model again, and so does fusing it", async () => {
  for (const row of rows) {
    const target = join(folder, `${rows.indexOf(row)}`);
    const { prompt } = fixture<Fixture>(`models/${row.name}.json`);
    const before = mx.liveHandles();
    const model = await base(row);
    linearToLora(model, row.num_layers, optionsOf(row));
    fill(model);
    await writeAdapterWeights(join(target, "adapters.safetensors"), trainableParameters(model));
    const { num_layers, kind: fine_tune_type, parameters: lora_parameters } = row;
    await writeAdapterConfig(target, { num_layers, lora_parameters, fine_tune_type, data: "somewhere" });
    model.dispose();

    const again = await base(row);
    await applyAdapters(again, target);
    // No graph of the numbers that the file replaced.
    expect(mx.isEvaluated(mx.random.state.get())).toBe(true);
    const left = decodes(again, row, prompt);
    const logits = (of: LanguageModel) => mx.scope(() => of.forward(idRow(prompt)).toArray() as Float32Array);
    const adapted = logits(again);
    if (!(row.quantized && row.kind === "dora")) {
      mx.scope(() => fuseAdapters(again, { dequantize: true }));
      expect(again.namedParameters().some(([name]) => /lora_/.test(name))).toBe(false);
      expectValues(logits(again), adapted, { tolerance: 2e-3 });
    }
    again.dispose();
    expect(mx.liveHandles()).toBe(before + left);
  }
});

test("full fine-tuning saves and loads whole blocks, and refuses packed ones", async () => {
  const before = mx.liveHandles();
  const target = join(folder, "full");
  const model = await base({ name: "llama", quantized: false });
  unfreezeBlocks(model, 1);
  const trained = trainableParameters(model);
  expect(trained.map(([name]) => name).every((name) => name.startsWith("model.layers.2."))).toBe(true);
  mx.scope(() => model.update(trained.map(([name, tensor]) => [name, tensor.multiply(1.5)])));
  await writeAdapterWeights(join(target, "adapters.safetensors"), trainableParameters(model));
  await writeAdapterConfig(target, { fine_tune_type: "full", num_layers: 1, lora_parameters: null });
  const again = await base({ name: "llama", quantized: false });
  await applyAdapters(again, target);
  const logits = (of: LanguageModel) => mx.scope(() => of.forward(idRow([1, 2, 3])).toArray() as Float32Array);
  expectValues(logits(again), logits(model), { tolerance: 1e-6 });
  again.dispose();
  model.dispose();

  const packed = await base({ name: "llama", quantized: true });
  expect(() => unfreezeBlocks(packed, 1)).toThrow("cannot be fine-tuned in full");
  packed.dispose();
  expect(mx.liveHandles()).toBe(before);
});

describe("what is not there or does not fit is an error", () => {
  const [row] = rows as [Row];

  async function attempt(config: object | null, weights: Record<string, number[]> | string | null): Promise<UserError> {
    const target = mkdtempSync(join(folder, "broken-"));
    if (config) writeFileSync(join(target, "adapter_config.json"), JSON.stringify(config));
    const path = join(target, "adapters.safetensors");
    if (typeof weights === "string") writeFileSync(path, weights);
    else if (weights) {
      const tensors = Object.entries(weights).map(([name, shape]) => [name, mx.zeros(shape)] as const);
      await writeAdapterWeights(path, tensors);
      for (const [, tensor] of tensors) tensor.dispose();
    }
    const before = mx.liveHandles();
    const model = await base(row);
    const error = await applyAdapters(model, target).then(
      () => new Error("nothing was thrown"),
      (thrown) => thrown,
    );
    model.dispose();
    expect(mx.liveHandles()).toBe(before);
    expect(error).toBeInstanceOf(UserError);
    return error;
  }

  const sound = { fine_tune_type: "lora", num_layers: 1, lora_parameters: { rank: 4, scale: 2, dropout: 0 } };
  const q = "model.layers.2.self_attn.q_proj";

  test.each<[string, object | null, Record<string, number[]> | string | null, RegExp]>([
    ["no configuration", null, { a: [1] }, /has no adapter_config.json/],
    ["no weights", sound, null, /has no adapters.safetensors/],
    ["cut-off weights", sound, "abc", /not a sound safetensors file/],
    ["alpha", { ...sound, lora_parameters: { rank: 4, alpha: 8 } }, { a: [1] }, /"scale"/],
    ["no rank", { ...sound, lora_parameters: { scale: 4 } }, { a: [1] }, /"rank"/],
    ["rank of text", { ...sound, lora_parameters: { scale: 4, rank: "8" } }, { a: [1] }, /"rank"/],
    ["no parameters", { num_layers: 1 }, { a: [1] }, /lora_parameters/],
    ["no layer count", { ...sound, num_layers: undefined }, { a: [1] }, /"num_layers"/],
    ["another kind", { ...sound, fine_tune_type: "ia3" }, { a: [1] }, /"fine_tune_type"/],
    ["PEFT's", { peft_type: "LORA", r: 8 }, { a: [1] }, /PEFT/],
    ["unknown keys", { ...sound, lora_parameters: { rank: 4, scale: 1, keys: ["q"] } }, { a: [1] }, /no layer.*: q/],
    ["keys of a norm", { ...sound, lora_parameters: { rank: 4, scale: 1, keys: ["input_layernorm"] } }, {}, /RMSNorm/],
    ["an unknown tensor", sound, { "model.norm.weight": [64] }, /model.norm.weight: not an adapter parameter/],
    ["another rank", sound, { [`${q}.lora_a`]: [64, 8] }, /adapter shape \(64, 8\).*shape \(64, 4\)/],
    ["another layer", sound, { "model.layers.0.self_attn.q_proj.lora_a": [64, 4] }, /layers.0.* not an adapter/],
  ])("%s", async (_, config, weights, message) => {
    expect((await attempt(config, weights)).message).toMatch(message);
  });

  test("no folder at all", async () => {
    const model = await base(row);
    expect(applyAdapters(model, join(folder, "nowhere"))).rejects.toThrow("there is no adapter folder");
    // A folder of data, say.
    expect(applyAdapters(model, folder)).rejects.toMatchObject({ hint: expect.stringContaining("lora --train") });
    model.dispose();
  });

  test("weights to resume from that belong to another model", async () => {
    const model = await base(row);
    const path = join(folder, "other.safetensors");
    const tensor = mx.zeros([2]);
    await writeAdapterWeights(path, [["other", tensor]]);
    tensor.dispose();
    expect(resumeWeights(model, path)).rejects.toThrow("belongs to this model");
    expect(resumeWeights(model, `${path}x`)).rejects.toThrow("there is no file");
    model.dispose();
  });
});

test("DoRA refuses experts and packed embeddings", async () => {
  const mixtral = await base({ name: "mixtral", quantized: false });
  const options = { rank: 2, scale: 1, dropout: 0, dora: true };
  expect(() => linearToLora(mixtral, 1, options)).toThrow("SwitchLinear, which cannot have a DoRA adapter");
  mixtral.dispose();
  const llama = await base({ name: "llama", quantized: true });
  expect(() => linearToLora(llama, 1, { ...options, keys: ["model.embed_tokens"] })).toThrow("QuantizedEmbedding");
  llama.dispose();
});

test("files that cannot be written leave what was there", async () => {
  const path = join(folder, "kept.safetensors");
  const tensor = mx.ones([2]);
  await writeAdapterWeights(path, [["a", tensor]]);
  const before = readFileSync(path);
  const freed = mx.ones([2]);
  freed.dispose();
  expect(writeAdapterWeights(path, [["a", freed]])).rejects.toThrow();
  expect(readFileSync(path)).toEqual(before);
  tensor.dispose();
  expect(existsSync(path)).toBe(true);
});

test("a rank that the memory has no room for is refused before any of it is taken", async () => {
  const model = await tinyModel();
  model.freeze();
  linearToLora(model, 2, { rank: 1_000_000, scale: 1, dropout: 0 });
  const before = bytesInUse();
  expect(() => checkAdapterRoom(model, 1_000_000, 16e9)).toThrow(
    /training adapters of rank 1000000 would need \d+ GB of memory, and 16 GB are free/,
  );
  expect(bytesInUse()).toBe(before);
  const usual = await tinyModel();
  usual.freeze();
  linearToLora(usual, 2, { rank: 8, scale: 1, dropout: 0 });
  checkAdapterRoom(usual, 8, 1e6);
});
