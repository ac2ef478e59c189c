/** Draft layers of checkpoints as they are published, converted and broken. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fixture } from "../../test/parity/fixtures";
import { type FormulaModel, formulaTensors } from "../../test/parity/formula-model";
import { DraftStepper } from "../generate/draft-stepper";
import { LoneStepper } from "../generate/lone-stepper";
import type { Stepper } from "../generate/stepper";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { convertModel } from "./convert";
import { type LoadedModel, loadModel } from "./load";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-mtp-"));
// The generator's key lives on from the first number that is drawn.
beforeAll(() => mx.random.seed(0));
afterAll(() => rmSync(folder, { recursive: true }));
const at = (...parts: string[]) => join(folder, ...parts);

const others = join(import.meta.dir, "../../test/fixtures/checkpoint");

type Changed = (tensors: Map<string, Tensor>) => void;

/** A checkpoint folder with the names that a published one has. */
function publish(name: string, of: string, change: Changed = () => {}, settings: object = {}): string {
  const model = fixture<FormulaModel & { prompt: number[] }>(`mtp/${of}.json`);
  cpSync(others, at(name), { recursive: true });
  for (const old of ["model.safetensors", "model.safetensors.index.json"]) rmSync(at(name, old), { force: true });
  writeFileSync(at(name, "config.json"), JSON.stringify({ ...model.config, ...settings }));
  mx.scope(() => {
    const tensors = formulaTensors(model);
    change(tensors);
    mx.saveSafetensors(at(name, "model.safetensors"), tensors);
  });
  return at(name);
}

const prompt = [7, 201, 42, 99, 13, 250, 128, 64];

async function tokensBy(stepper: Stepper): Promise<number[]> {
  const tokens: number[] = [];
  for await (const { token } of stepper.steps({ prompt, maxTokens: 12 })) tokens.push(token);
  return tokens;
}

/** The text with and without drafts. */
async function texts({ model, draftHead: head }: LoadedModel): Promise<[number[], number[]]> {
  return [await tokensBy(new LoneStepper(model)), await tokensBy(new DraftStepper(model, { head: head!, tokens: 2 }))];
}

function close({ model, draftHead }: LoadedModel): void {
  model.dispose();
  draftHead?.dispose();
}

const bytes = (...parts: string[]) => readFileSync(at(...parts));

const types = [
  ...["qwen3_5_moe", "deepseek_v3", "glm4_moe", "mimo", "mimo_v2_flash"],
  ...["bailing_moe", "bailing_hybrid", "bailing_moe_v3", "ernie4_5_moe", "step3p5"],
];

describe.each(types)("%s", (type) => {
  test("draft layers are loaded only where they are asked for, and change no text", async () => {
    const before = mx.liveHandles();
    const path = publish(`${type} published`, type);
    const plain = await loadModel(path);
    expect(plain.draftHead).toBeUndefined();
    close(plain);
    const loaded = await loadModel(path, { draftHead: true });
    const [own, drafted] = await texts(loaded);
    expect(drafted).toEqual(own);
    close(loaded);
    expect(mx.liveHandles()).toBe(before);
  });

  test("convert keeps them in a file of their own, and all else is as without", async () => {
    const before = mx.liveHandles();
    const path = publish(`${type} source`, type);
    const quantize = { groupSize: 32, bits: 4 };
    for (const [name, keepMtp] of [
      ["kept", true],
      ["dropped", false],
    ] as const) {
      await convertModel({ path }, at(`${type} ${name}`), { quantize, keepMtp });
    }
    for (const file of ["model.safetensors", "model.safetensors.index.json", "config.json", "README.md"]) {
      expect(bytes(`${type} kept`, file).equals(bytes(`${type} dropped`, file))).toBe(true);
    }
    expect(existsSync(at(`${type} dropped`, "mtp.safetensors"))).toBe(false);

    const loaded = await loadModel(at(`${type} kept`), { draftHead: true });
    const names = loaded.draftHead!.namedParameters().map(([name]) => name);
    expect(names.filter((name) => name.endsWith(".scales")).length).toBeGreaterThan(5);
    const [own, drafted] = await texts(loaded);
    expect(drafted).toEqual(own);
    close(loaded);

    await convertModel({ path: at(`${type} kept`) }, at(`${type} unpacked`), { dequantize: true, keepMtp: true });
    const unpacked = await loadModel(at(`${type} unpacked`), { draftHead: true });
    expect(unpacked.draftHead!.namedParameters().filter(([name]) => name.endsWith(".scales"))).toEqual([]);
    close(unpacked);
    expect(mx.liveHandles()).toBe(before);
  });
});

test("routers of draft layers keep the bits that the model's have", async () => {
  await convertModel({ path: publish("routers", "qwen3_5_moe") }, at("routers of 8 bits"), {
    quantize: { groupSize: 64, bits: 4 },
    keepMtp: true,
  });
  const { arrays } = mx.loadSafetensors(at("routers of 8 bits", "mtp.safetensors"));
  const words = (name: string) => arrays.get(`mtp.layers.0.mlp.${name}.weight`)!.shape.at(-1);
  // 64 inputs: 16 words of 8 bits, and 8 of 4.
  expect([words("gate"), words("shared_expert.gate_proj")]).toEqual([16, 8]);
  for (const tensor of arrays.values()) tensor.dispose();
});

const isDraft = (name: string) => name.includes("mtp") || name.startsWith("model.layers.4.");

describe("refused, with a next step:", () => {
  test.each<[string, string, Changed, RegExp, RegExp]>([
    [
      "a checkpoint without draft layers",
      "deepseek_v3",
      (tensors) => {
        for (const name of [...tensors.keys()].filter(isDraft)) tensors.delete(name);
      },
      /has no draft layers \(multi-token prediction\): many checkpoints leave them out/,
      /Take the original checkpoint/,
    ],
    [
      "draft layers that lack a tensor",
      "mimo",
      (tensors) => void tensors.delete("model.mtp_layers.0.input_proj.weight"),
      /1 tensor is missing: layers\.0\.input_proj\.weight/,
      /belong together/,
    ],
    [
      "draft layers with one too many",
      "qwen3_5",
      (tensors) => void tensors.set("mtp.layers.0.extra.weight", mx.ones([2])),
      /1 tensor is unknown: layers\.0\.extra\.weight/,
      /belong together/,
    ],
    [
      "a tensor of another shape",
      "glm4_moe",
      (tensors) => {
        const name = [...tensors.keys()].find((name) => name.endsWith("eh_proj.weight"))!;
        tensors.set(name, mx.ones([64, 64]));
      },
      /eh_proj\.weight is \(64, 64\), expected \(64, 128\)/,
      /belong together/,
    ],
    [
      "a tensor of integers",
      "qwen3_5",
      (tensors) => void tensors.set("mtp.fc.weight", mx.ones([64, 128], "int32")),
      /fc\.weight .* is int32/,
      /original weights/,
    ],
    [
      "a tensor with NaN",
      "qwen3_5",
      (tensors) => void tensors.set("mtp.norm.weight", mx.full([64], Number.NaN)),
      /norm\.weight .* holds NaN/,
      /again/,
    ],
    [
      "experts of different shapes",
      "deepseek_v3",
      (tensors) => void tensors.set("model.layers.4.mlp.experts.3.up_proj.weight", mx.ones([3, 64])),
      /model\.layers\.4|layers\.0\.mlp\.experts\.3\.up_proj/,
      /./,
    ],
  ])("%s", async (title, type, change, message, hint) => {
    const before = mx.liveHandles();
    const path = publish(title, type, change);
    // Without drafts nothing is wrong.
    close(await loadModel(path));
    const error = await loadModel(path, { draftHead: true }).catch((thrown) => thrown);
    expect(error.message).toMatch(message);
    expect(error.options.hint).toMatch(hint);
    expect(mx.liveHandles()).toBe(before);
  });

  test("a file of draft layers that is cut off", async () => {
    const before = mx.liveHandles();
    await convertModel({ path: publish("whole", "mimo") }, at("cut"), { keepMtp: true });
    writeFileSync(at("cut", "mtp.safetensors"), bytes("cut", "mtp.safetensors").subarray(0, 3000));
    const error = await loadModel(at("cut"), { draftHead: true }).catch((thrown) => thrown);
    expect(error.message).toMatch(/mtp\.safetensors is not a sound safetensors file/);
    close(await loadModel(at("cut")));
    expect(mx.liveHandles()).toBe(before);
  });

  test("a model type that has none", async () => {
    const error = await loadModel(others, { draftHead: true }).catch((thrown) => thrown);
    expect(error.message).toMatch(/models of type "llama" have no draft layers that mlxlm knows/);
    expect(error.options.hint).toMatch(/deepseek_v3.*qwen3_next.*--draft ngram/);
    expect(convertModel({ path: others }, at("none"), { keepMtp: true })).rejects.toThrow("have no draft layers");
  });
});
