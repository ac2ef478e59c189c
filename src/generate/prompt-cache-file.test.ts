import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fixture } from "../../test/parity/fixtures";
import { type FormulaModel, formulaModel } from "../../test/parity/formula-model";
import { UserError } from "../errors";
import * as mx from "../mlx";
import type { Cache } from "../models";
import { CacheList, KVCache, savedStateOf } from "../nn";
import { loadPromptCache, savePromptCache } from "./prompt-cache-file";
import { generateSteps } from "./step";

interface Fixture extends FormulaModel {
  /** Files that Python wrote: gzip, base64. */
  kinds: Record<string, string>;
  /** The same of the layers of models, with the class of each. */
  models: Record<string, { classes: string[]; file: string }>;
  continued: { prefix: number[]; rest: number[]; tokens: number[]; file: string };
}

const { kinds, models, continued, ...recipe } = fixture<Fixture>("prompt-caches.json");

const folder = mkdtempSync(join(tmpdir(), "mlxlm-prompt-cache-"));
afterAll(() => rmSync(folder, { recursive: true }));

function file(name: string, base64: string): string {
  const path = join(folder, `${name}.safetensors`);
  writeFileSync(path, Bun.gunzipSync(Buffer.from(base64, "base64")));
  return path;
}

const written = (state: unknown): unknown => {
  if (Array.isArray(state)) return state.map(written);
  return state instanceof mx.Tensor ? { dtype: state.dtype, shape: state.shape, values: state.toList() } : state;
};
const contents = (cache: readonly Cache[]) =>
  cache.map((layer) => [layer.constructor.name, written(savedStateOf(layer))]);
const dispose = (cache: readonly Cache[]) => {
  for (const layer of cache) layer.dispose();
};

const files: [name: string, file: string, classes?: string[]][] = [
  ...Object.entries(kinds),
  ...Object.entries(models).map(([name, { file, classes }]): [string, string, string[]] => [name, file, classes]),
];

describe.each(files)("a file of Python's with %s", (kind, base64, classes) => {
  test("is read, and written again the same", async () => {
    const before = mx.liveHandles();
    const path = file(kind, base64);
    const { cache, metadata } = await loadPromptCache(path);
    expect(metadata).toEqual({});
    expect(cache.map((layer) => layer.constructor.name)).toEqual(classes ?? cache.map(() => kind));
    const again = join(folder, "again.safetensors");
    await savePromptCache(again, cache, { a: "b" });
    const second = await loadPromptCache(again);
    expect(second.metadata).toEqual({ a: "b" });
    expect(contents(second.cache)).toEqual(contents(cache));
    // The same tensors under the same names, whoever writes.
    mx.scope(() => {
      const [theirs, ours] = [path, again].map((one) => mx.loadSafetensors(one));
      const { "0.a": _, ...facts } = ours!.metadata;
      expect(sortedScalars(facts)).toEqual(sortedScalars(theirs!.metadata));
      expect([...ours!.arrays.keys()].sort()).toEqual([...theirs!.arrays.keys()].sort());
      for (const [name, tensor] of ours!.arrays) expect(written(tensor)).toEqual(written(theirs!.arrays.get(name)));
    });
    dispose([...cache, ...second.cache]);
    expect(mx.liveHandles()).toBe(before);
  });
});

const sortedScalars = (facts: Record<string, string>) => Object.values(facts).sort();

test("a model continues from Python's file with Python's tokens, and from its own", async () => {
  const model = await formulaModel(recipe);
  const before = mx.liveHandles();
  const { prefix, rest, tokens, file: base64 } = continued;
  const theirs = await loadPromptCache(file("continued", base64));
  expect(theirs.metadata).toEqual({ model: "tiny", tokenizer_config: "{}" });
  const cold = model.makeCache();
  for await (const _ of generateSteps(model, prefix, { maxTokens: 0, cache: cold }));
  const path = join(folder, "ours.safetensors");
  await savePromptCache(path, cold);
  const ours = await loadPromptCache(path);
  for (const cache of [theirs.cache, ours.cache, cold]) {
    const got: number[] = [];
    for await (const { token } of generateSteps(model, rest, { maxTokens: tokens.length, cache })) got.push(token);
    expect(got).toEqual(tokens);
    dispose(cache);
  }
  expect(mx.liveHandles()).toBe(before);
  model.dispose();
});

describe("is refused with a reason:", () => {
  const whole = () => new Uint8Array(Bun.gunzipSync(Buffer.from(kinds.KVCache!, "base64")));
  const altered = (change: (header: Record<string, never>) => void) => () => {
    const bytes = whole();
    const length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(bytes.slice(8, 8 + length)));
    change(header);
    const text = new TextEncoder().encode(JSON.stringify(header));
    const prefix = new Uint8Array(8);
    new DataView(prefix.buffer).setBigUint64(0, BigInt(text.length), true);
    return Buffer.concat([prefix, text, bytes.slice(8 + length)]);
  };
  const metadata = (change: (facts: Record<string, string>) => void) =>
    altered((header) => change(header.__metadata__ as unknown as Record<string, string>));

  interface Described {
    dtype: string;
    shape: number[];
  }
  const entry = (header: Record<string, never>, place: string) => header[place] as unknown as Described;
  const renamed = (from: string, to: string) =>
    altered((header) => {
      header[to] = header[from]!;
      delete header[from];
      const facts = header.__metadata__ as unknown as Record<string, string>;
      for (const [name, value] of Object.entries(facts)) if (value === from) facts[name] = to;
    });
  const retyped = (place: string, dtype: string) => altered((header) => Object.assign(entry(header, place), { dtype }));
  const reshaped = (place: string, shape: number[]) =>
    altered((header) => Object.assign(entry(header, place), { shape }));
  const numbered = (place: string, value: number) => () => {
    const bytes = whole();
    const view = new DataView(bytes.buffer);
    const length = Number(view.getBigUint64(0, true));
    const [start] = JSON.parse(new TextDecoder().decode(bytes.slice(8, 8 + length)))[place].data_offsets;
    view.setInt32(8 + length + start, value, true);
    return bytes;
  };

  test.each<[name: string, bytes: () => Uint8Array, problem: RegExp]>([
    ["a file that is cut off", () => whole().slice(0, 300), /not a sound safetensors file/],
    ["a file of something else", () => new TextEncoder().encode("hello, world"), /not a sound safetensors file/],
    ["no metadata", altered((header) => delete header.__metadata__), /metadata does not say/],
    ["an older layout", metadata((facts) => Object.assign(facts, { "2.0": "KVCache" })), /before 0\.32\.1/],
    ["an unknown kind", metadata((facts) => Object.assign(facts, { "1.0": "FooCache" })), /no state of a FooCache/],
    ["a name of an object's own", metadata((facts) => Object.assign(facts, { "1.0": "constructor" })), /no state of/],
    [
      "another kind's state",
      metadata((facts) => Object.assign(facts, { "1.0": "RotatingKVCache" })),
      /no state of a Rot/,
    ],
    ["a layer without a kind", metadata((facts) => delete facts["1.0"]), /layer 0 has no kind/],
    ["an unknown value", metadata((facts) => Object.assign(facts, { "2.1.1": "pickle" })), /unknown kind "pickle"/],
    ["a tensor as a number", metadata((facts) => Object.assign(facts, { "2.1.0": "0.0" })), /0\.0 is not what/],
    [
      "a strange place",
      altered((header) => {
        header["0.__proto__"] = header["0.2"]!;
        delete header["0.2"];
      }),
      /tensor __proto__|no state/,
    ],
    ["a place of 50,000 levels", renamed("0.2", "0".concat(".0".repeat(50_000))), /"0\.0\.0.*…", and no state/],
    ["a name with control characters", renamed("0.2", "0.\u001b[2J"), /"0\.\\u001b\[2J", and no state/],
    [
      "a place that is a value and a list",
      renamed("0.2", "0.0.1"),
      /0\.0 is there twice, or a value and a list at once/,
    ],
    ["too few entries", renamed("0.2", "2.0"), /layer 0 .* 2 entries, not 3 \(keys, values, offset\)/],
    ["no keys", renamed("0.0", "5.0"), /it has 0\.1, but lacks 0\.0/],
    ["a hole between layers", renamed("0.2", "9999.0"), /it has 9999, but lacks 2/],
    [
      "a layer that is left out",
      metadata((facts) => Object.assign(facts, { "1.7": "KVCache" })),
      /\(1\.7\) names the kind of a layer that is not there/,
    ],
    ["keys that are no floats", retyped("0.0", "I32"), /its keys are of int32/],
    ["values of other heads", reshaped("0.1", [1, 1, 512, 4]), /values.*\(1, 1, 512, 4\).*in the last axis only/],
    ["keys without an axis", reshaped("0.0", [2, 256, 4]), /its keys are a tensor \(2, 256, 4\)/],
    ["a number that is too large", numbered("0.2", 1_000_000), /its offset is 1000000, but its keys have 256 rows/],
    ["a number below 0", numbered("0.2", -3), /its offset is -3, not a whole number/],
    ["a kind's name with an escape", metadata((facts) => Object.assign(facts, { "1.0": "\u001b[2J" })), /\\u001b\[2J/],
  ])("%s", async (name, bytes, problem) => {
    const path = join(folder, `bad ${name}.safetensors`);
    writeFileSync(path, bytes());
    const before = mx.liveHandles();
    const began = performance.now();
    const error = await loadPromptCache(path).catch((thrown) => thrown);
    expect(performance.now() - began).toBeLessThan(2000);
    expect(error).toBeInstanceOf(UserError);
    expect(error.message).toMatch(problem);
    expect(error.message.length).toBeLessThan(500);
    expect(error.hint).toContain("mlxlm cache_prompt");
    expect(mx.liveHandles()).toBe(before);
  });

  test("what is no file, or has a header of another sort of file", async () => {
    const pipe = join(folder, "pipe.safetensors");
    expect(Bun.spawnSync(["mkfifo", pipe]).exitCode).toBe(0);
    await expect(loadPromptCache(pipe)).rejects.toThrow("it is a pipe or a device");
    const sub = join(folder, "folder.safetensors");
    mkdirSync(sub);
    await expect(loadPromptCache(sub)).rejects.toThrow("it is a folder");
    await expect(loadPromptCache(join(folder, "x".repeat(5000)))).rejects.toThrow("ENAMETOOLONG");
    const long = join(folder, "long.safetensors");
    const bytes = new Uint8Array(20_000_000);
    new DataView(bytes.buffer).setBigUint64(0, 19_000_000n, true);
    writeFileSync(long, bytes);
    await expect(loadPromptCache(long)).rejects.toThrow("its header has 19000000 bytes");
  });

  test("a file that is not there", async () => {
    await expect(loadPromptCache(join(folder, "nothing"))).rejects.toThrow(/no prompt-cache file .*nothing/);
  });

  test("a folder that is not there to save to; nothing is left of a save that failed", async () => {
    await expect(savePromptCache(join(folder, "no/where"), [])).rejects.toThrow("there is no folder");
    const path = join(folder, "kept.safetensors");
    writeFileSync(path, "before");
    const unknown = { state: [null] } as unknown as Cache;
    await expect(savePromptCache(path, [unknown])).rejects.toThrow("cannot be kept in a file");
    expect(readFileSync(path, "utf8")).toBe("before");
    expect(readdirSync(folder).filter((name) => name.includes("kept."))).toEqual(["kept.safetensors"]);
    expect(existsSync(path)).toBe(true);
  });
});

test("lists of caches keep the kinds of their parts", async () => {
  const path = join(folder, "list.safetensors");
  const inner = new KVCache();
  mx.scope(() => void inner.update(mx.ones([1, 1, 2, 3]), mx.zeros([1, 1, 2, 3])));
  const list = new CacheList([new CacheList([inner])]);
  await savePromptCache(path, [list]);
  const { cache } = await loadPromptCache(path);
  expect(((cache[0] as CacheList).parts[0] as CacheList).parts[0]).toBeInstanceOf(KVCache);
  expect(contents(cache)).toEqual(contents([list]));
  dispose([...cache, list]);
});
