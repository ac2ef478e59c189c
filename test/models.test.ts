/** `mlxlm models` over a cache that our own downloads made. */
import { beforeEach, describe, expect, test } from "bun:test";
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { resolveModel } from "../src/hub/resolve";
import { modelTypes, modelTypesWith } from "../src/models";
import { ggufBytes, tinyLlama } from "./gguf-file";
import { hubEnvironment } from "./hub-environment";
import { commit } from "./hub-server";
import { runCommand } from "./run-command";

const hub = hubEnvironment();
const models = (words: string[], stdin?: string) => runCommand(["models", ...words], { stdin });

const config = (facts: object) => JSON.stringify({ model_type: "qwen3", max_position_embeddings: 40960, ...facts });
const four = { group_size: 64, bits: 4, mode: "affine" };
const weights = new Uint8Array(1_200_000);

const configs: Record<string, string> = {
  "org/Packed-4bit": config({ quantization: four, torch_dtype: "bfloat16" }),
  "org/mixed": config({ quantization: { ...four, "model.embed": { bits: 6, group_size: 64 }, lm_head: false } }),
  "org/foreign": config({ quantization_config: { quant_method: "awq", bits: 4 }, max_position_embeddings: null }),
  "other/plain": config({ model_type: "llama", text_config: { dtype: "float16" } }),
};

beforeEach(async () => {
  const repo = (text: string) => ({ files: { "config.json": text, "model.safetensors": weights }, large: [] });
  hub.serve(Object.fromEntries(Object.entries(configs).map(([name, text]) => [name, repo(text)])));
  for (const name of Object.keys(configs)) await resolveModel(name);
  mkdirSync(join(hub.cache, "datasets--org--data/snapshots", commit), { recursive: true });
  mkdirSync(join(hub.cache, "datasets--org--data/refs"));
});

const folder = (name: string) => join(hub.cache, `models--${name.replace("/", "--")}`);

describe("models", () => {
  test("lists those of the cache, with what their configurations say", async () => {
    const { code, out } = await models(["list"]);
    expect(code).toBe(0);
    expect(out).toMatch(/^MODEL +SIZE +WEIGHTS +CONTEXT +LAST USED +PATH/);
    expect(out).toMatch(/^org\/Packed-4bit +1\.2M 4-bit affine, group 64 +40960 a few seconds ago /m);
    expect(out).toMatch(/^org\/mixed +1\.2M 4\/6-bit affine, group 64 +40960 /m);
    expect(out).toMatch(/^org\/foreign +1\.2M awq, 4-bit +- /m);
    expect(out).toMatch(/^other\/plain +1\.2M float16 +40960 /m);
    expect(out).toContain(folder("org/mixed"));
    expect(out).not.toContain("org/data");
    expect((await models([])).out).toBe(out);
  });

  test("lists those whose names have the given parts, as JSON too", async () => {
    const { out } = await models(["list", "ORG", "packed", "--json"]);
    const listed = JSON.parse(out).models;
    expect(listed).toMatchObject([
      {
        id: "org/Packed-4bit",
        size: weights.length + configs["org/Packed-4bit"]!.length,
        files: 2,
        model_type: "qwen3",
        quantization: "4-bit affine, group 64",
        dtype: "bfloat16",
        context_length: 40960,
        revisions: [commit],
        path: folder("org/Packed-4bit"),
        snapshot: join(folder("org/Packed-4bit"), "snapshots", commit),
      },
    ]);
    expect((await models(["list", "absent"])).out).toBe("no models\n");
  });

  test("tells about one", async () => {
    const { code, out } = await models(["info", "org/Packed-4bit"]);
    expect(code).toBe(0);
    expect(out).toMatch(/^org\/Packed-4bit\n {2}type +qwen3\n {2}size +1\.2M in 2 files\n {2}weights +4-bit/);
    expect(out).toContain("  context    40960 tokens\n");
    expect(out).toContain(join(folder("org/Packed-4bit"), "snapshots", commit));
  });

  test("removes those that are named, after a yes, and no others", async () => {
    const { code, out } = await models(["rm", "org/mixed", "other/plain"], "yes\n");
    expect(code).toBe(0);
    expect(out).toMatch(/^org\/mixed {2}1\.2M {2}.*\nother\/plain {2}.*\nRemove all 2\? \(y\/n\) Removed.\n$/);
    expect(
      readdirSync(hub.cache)
        .filter((name) => name.startsWith("models--"))
        .sort(),
    ).toEqual(["models--org--Packed-4bit", "models--org--foreign"]);
  });

  for (const answer of ["n\n", ""]) {
    test(`keeps everything after ${JSON.stringify(answer)}`, async () => {
      const before = readdirSync(hub.cache);
      expect((await models(["rm", "org/mixed"], answer)).out).toEndWith("Nothing was removed.\n");
      expect(readdirSync(hub.cache)).toEqual(before);
    });
  }

  test("removes without asking, and says so as JSON", async () => {
    const { out } = await models(["rm", "--yes", "--json", "org/mixed"]);
    expect(JSON.parse(out)).toEqual({ removed: ["org/mixed"] });
  });

  test("removes nothing where one of the names is wrong", async () => {
    const before = readdirSync(hub.cache);
    const { code, problems } = await models(["rm", "--yes", "org/mixed", "org/foriegn"]);
    expect(code).toBe(3);
    expect(problems).toContain("there is no model org/foriegn in the cache");
    expect(problems).toContain("Did you mean org/foreign?");
    expect((await models(["rm", "--yes", "org"])).code).toBe(3);
    expect((await models(["rm", "--yes", ".."])).code).toBe(3);
    expect(readdirSync(hub.cache)).toEqual(before);
  });

  test("goes on where a configuration is broken, or a model is not whole", async () => {
    writeFileSync(join(folder("org/mixed"), "snapshots", commit, "config.json"), "{");
    rmSync(join(folder("other/plain"), "snapshots", commit, "model.safetensors"));
    const { code, out } = await models(["list"]);
    expect(code).toBe(0);
    expect(out).toMatch(/^org\/mixed +1\.2M - +- /m);
    expect(out).toMatch(/^other\/plain .* float16 +40960 /m);
    expect((await models(["info", "org/mixed"])).out).toContain("no config.json that can be read");
    expect(JSON.parse((await models(["info", "other/plain", "--json"])).out).models[0].snapshot).toBeNull();
  });

  test("shows what an interrupted download left, and removes it", async () => {
    mkdirSync(join(folder("org/half"), "blobs"), { recursive: true });
    writeFileSync(join(folder("org/half"), "blobs/aa.12345678.incomplete"), new Uint8Array(5000));
    expect((await models(["list", "half"])).out).toMatch(/^org\/half +0\.0 - +- /m);
    const { out } = await models(["info", "org/half"]);
    expect(out).toContain("0.0 in 0 files, 5.0K incomplete");
    expect(out).toContain("its download was interrupted");
    expect((await models(["rm", "org/half"], "y\n")).out).toStartWith("org/half  5.0K  ");
    expect(existsSync(folder("org/half"))).toBe(false);
  });

  test("an empty cache is no error, nor is none", async () => {
    for (const cache of [hub.cache, join(hub.cache, "nowhere")]) {
      rmSync(hub.cache, { recursive: true, force: true });
      const env = { HF_HUB_CACHE: cache };
      expect(await runCommand(["models", "list"], { env })).toEqual({ code: 0, out: "no models\n", problems: "" });
      const { code, problems } = await runCommand(["models", "info", "org/name"], { env });
      expect(code).toBe(3);
      expect(problems).toContain("The cache is empty");
    }
  });

  test("tells about the demo, a folder and a GGUF file, and removes none of them", async () => {
    expect((await models(["info", "demo"])).out).toMatch(/^demo\n {2}type +llama\n {2}size +[\d.]+M in 5 files\n/);
    const own = join(import.meta.dir, "fixtures/checkpoint");
    const { out } = await models(["info", own]);
    expect(out).toStartWith(`${own}\n  type`);
    expect(out).not.toContain("revisions");
    const file = join(hub.cache, "own.gguf");
    writeFileSync(file, ggufBytes(tinyLlama));
    expect((await models(["info", file])).out).toMatch(/own\.gguf\n {2}type +llama\n {2}size +[\d.]+K in 1 file\n/);
    expect((await models(["info", file])).out).toMatch(/weights +\d+ tensors: \d+ \w+/);
    const { code, problems } = await models(["rm", own]);
    expect(code).toBe(2);
    expect(problems).toContain(`rm -r ${own}`);
    expect(existsSync(own)).toBe(true);
    expect((await models(["rm", "demo"])).problems).toContain("part of mlxlm");
  });

  test("says what is wrong with a folder that is no model, or none that runs", async () => {
    const own = join(hub.cache, "own");
    mkdirSync(own);
    const info = async (name: string) => {
      const { code, problems } = await models(["info", name]);
      return [code, problems.split("\n")[0]];
    };
    expect(await info("./nosuch")).toEqual([3, "mlxlm: there is no folder ./nosuch"]);
    expect(await info(own)).toEqual([3, `mlxlm: ${own} is no model: it has no config.json that can be read`]);
    writeFileSync(join(own, "config.json"), config({ model_type: "nosuch" }));
    const { out } = await models(["info", own]);
    expect(out).toMatch(/type +nosuch: models of this type are not supported\n/);
    expect(out).toMatch(/weights +none: there is no \.safetensors file\n/);
  });

  test("wants to know what to do, and to which", async () => {
    expect(await models(["lst"])).toMatchObject({ code: 2, problems: expect.stringContaining("Did you mean list?") });
    expect(await models(["rm"])).toMatchObject({ code: 2, problems: expect.stringContaining("name of a model") });
    expect(await models(["--words", "list"])).toMatchObject({ code: 2 });
  });
});

describe("models arch", () => {
  test("lists model types with what they take", async () => {
    const { code, out } = await models(["arch", "gemma3", "falcon_m"]);
    expect(code).toBe(0);
    expect(out).toMatch(/^MODEL TYPE +FAMILY +CACHES +KV-BITS +LORA +AWQ +GGUF +BATCH +MTP +RANKS/);
    expect(out).toMatch(/^falcon_mamba = mamba +Falcon +state +- +yes /m);
    expect(out).toMatch(/^gemma3_text +Gemma +full, window +some +yes +yes +in, out +yes /m);
    expect(out).not.toContain("qwen");
  });

  test.each([
    ["qwen4", 0],
    ["lama9", 3],
    ["nothing-like-it-at-all", 3],
  ])("%s ends with %i", async (part, wanted) => {
    const { code, out, problems } = await models(["arch", "gemma3", part]);
    expect(code).toBe(wanted);
    if (wanted === 0) return;
    expect(out).toBe("");
    expect(problems).toContain(`no model type has "${part}" in its name`);
  });

  test("as JSON: all of the registry, each with its caches and its facts", async () => {
    const { architectures } = JSON.parse((await models(["arch", "--json"])).out);
    expect(architectures.map((one: { model_type: string }) => one.model_type)).toEqual([...modelTypes]);
    expect(architectures.filter((one: { caches: string[] }) => one.caches.length === 0)).toEqual([]);
    const withAwq = architectures.filter((one: { quantizers: string[] }) => one.quantizers.includes("awq"));
    expect(withAwq.map((one: { model_type: string }) => one.model_type)).toEqual(await modelTypesWith("awq"));
    expect(architectures.find((one: { model_type: string }) => one.model_type === "bitnet")).toMatchObject({
      lora: false,
      quantizers: [],
    });
  });
});

test("the caches of every model type have words", async () => {
  expect((await models(["arch"])).out).not.toMatch(/Cache/);
});
