import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fixture } from "../../test/parity/fixtures";
import { readSettingsFile, resolveSettings, sizeOf, unknownSettings } from "./settings";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-settings-"));
afterAll(() => rmSync(folder, { recursive: true }));

let files = 0;

function written(text: string): string {
  const path = join(folder, `${files++}.yaml`);
  writeFileSync(path, text);
  return path;
}

interface Fixture {
  defaults: Record<string, unknown>;
  files: { text: string; value: Record<string, unknown> }[];
  sizes: Record<string, number>;
}

const expected = fixture<Fixture>("tune-settings.json");

test("without a word from the user they are mlx-lm's", () => {
  expect(resolveSettings() as Record<string, unknown>).toEqual(expected.defaults);
});

test("an optimizer's name may have capitals, as in Python's files", async () => {
  const file = await readSettingsFile(written("optimizer: AdamW"));
  expect(resolveSettings(file).optimizer).toBe("adamw");
  expect(() => resolveSettings({ optimizer: "AdamX" })).toThrow("optimizer");
});

test("a rank that no tensor can have is refused before any work", () => {
  const wanted = (rank: number) => resolveSettings({ lora_parameters: { rank, scale: 20, dropout: 0 } });
  expect(wanted(16_384).lora_parameters!.rank).toBe(16_384);
  expect(() => wanted(2 ** 31)).toThrow('"rank": Too big');
});

test.each(expected.files.map(({ text, value }) => [text, value] as const))(
  "%j is read as PyYAML does",
  async (text, value) => {
    const special = { inf: Infinity, "-inf": -Infinity } as Record<string, unknown>;
    const wanted = Object.entries(value).map(([name, one]) => [name, special[String(one)] ?? one]);
    expect(await readSettingsFile(written(text))).toEqual(Object.fromEntries(wanted));
  },
);

test.each(Object.entries(expected.sizes))("the size %s", (text, bytes) => {
  expect(sizeOf(text)).toBe(bytes);
});

test.each(["", "M", "5KB", "1..5", "-3", "5 M B"])("%j is no size", (text) => {
  expect(() => sizeOf(text)).toThrow("is no size");
});

test("the command line comes before the file, and null counts as nothing", () => {
  const settings = resolveSettings({ batch_size: 2, seed: undefined }, { batch_size: 8, seed: 3, iters: null });
  expect(settings).toMatchObject({ batch_size: 2, seed: 3, iters: 1000 });
});

test("lora_parameters of a file take the place of all defaults", () => {
  const settings = resolveSettings({ lora_parameters: { rank: 4, scale: 2, keys: ["self_attn.q_proj"] } });
  expect(settings.lora_parameters).toEqual({ rank: 4, scale: 2, dropout: 0, keys: ["self_attn.q_proj"] });
  expect(resolveSettings({ fine_tune_type: "full" }).lora_parameters).toBeNull();
});

test("a misspelled name is found", () => {
  const hf_dataset = [{ path: "a", train_splits: "train" }, { path: "b" }, 5];
  expect(unknownSettings({ lora_parameter: {}, iters: 1, wholly_other_thing_here: 2, hf_dataset })).toEqual([
    ["lora_parameter", "lora_parameters"],
    ["wholly_other_thing_here", null],
    ["hf_dataset.train_splits", "hf_dataset.train_split"],
  ]);
});

describe("wrong values are errors with the name", () => {
  test.each<[Record<string, unknown>, RegExp]>([
    [{ learning_rate: "1e-5" }, /"learning_rate"/],
    [{ batch_size: 0 }, /"batch_size"/],
    [{ iters: 2.5 }, /"iters"/],
    [{ fine_tune_type: "qlora" }, /"fine_tune_type"/],
    [{ lr_schedule: { name: "cosine_decay" } }, /"lr_schedule.arguments"/],
    [{ lr_schedule: { name: "cosine_decay", arguments: [1], warm: 3 } }, /"lr_schedule"/],
    [{ lora_parameters: { rank: 8, alpha: 16 } }, /"scale"/],
    [{ lora_parameters: 8 }, /lora_parameters/],
    [{ clear_cache_threshold: "many" }, /"many" is no size/],
    [{ hf_dataset: { name: "x" } }, /"hf_dataset.path"/],
    [{ hf_dataset: [{ path: "a" }, { path: "b", config: { nam: "c" } }] }, /"hf_dataset.1.config": .*"nam"/],
    [{ hf_dataset: "org/name" }, /"hf_dataset": /],
  ])("%j", (given, message) => {
    expect(() => resolveSettings(given)).toThrow(message);
  });
});

describe("a file that is none", () => {
  test.each([
    ["- 1\n- 2", /must hold names and values/],
    ["", /must hold names and values/],
    ["a: [1", /is not YAML/],
    ["a: &x [*x]", /cannot be read|not YAML/],
    [`a: ${"[".repeat(5000)}`, /not YAML|cannot be read/],
    ["x".repeat(2 ** 20 + 1), /no settings are that long/],
  ])("%#", async (text, message) => {
    await expect(readSettingsFile(written(text))).rejects.toThrow(message);
  });

  test("is not there", async () => {
    await expect(readSettingsFile(join(folder, "none.yaml"))).rejects.toThrow("there is no configuration file");
  });
});
