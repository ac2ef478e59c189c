/** `mlxlm models fit`: of models on a hub nothing but lists and headers is fetched. */
import { describe, expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Fit } from "../src/evaluate/fit";
import { ggufBytes, tinyLlama } from "./gguf-file";
import { hubEnvironment } from "./hub-environment";
import type { HubRepo } from "./hub-server";
import { runCommand } from "./run-command";

const hub = hubEnvironment();

const run = (...words: string[]) =>
  runCommand(["models", "fit", ...words], { env: { XDG_CACHE_HOME: join(hub.folder, "own-cache") } });

async function fit(...words: string[]): Promise<{ code: number; one: Fit }> {
  const { code, out } = await run(...words, "--json");
  return { code, one: JSON.parse(out).models[0] };
}

type Shapes = Record<string, readonly [dtype: string, shape: number[]]>;

const bytesOf: Record<string, number> = { BF16: 2, U32: 4 };

/** The beginning of a safetensors file, and the size that the file would have. */
function weightsFile(shapes: Shapes): { begin: Uint8Array; size: number } {
  let at = 0;
  const entries = Object.entries(shapes).map(([name, [dtype, shape]]) => {
    const start = at;
    at += shape.reduce((product, dim) => product * dim, 1) * bytesOf[dtype]!;
    return [name, { dtype, shape, data_offsets: [start, at] }];
  });
  const header = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  const begin = Buffer.concat([length, header, Buffer.alloc(128 * 1024)]);
  return { begin, size: 8 + header.length + at };
}

/** A repo whose weights are only claimed. */
function repo(config: object, ...files: Shapes[]): HubRepo {
  const weights = files.map((shapes, i) => [`model-0000${i + 1}.safetensors`, weightsFile(shapes)] as const);
  return {
    files: {
      "config.json": JSON.stringify(config),
      ...Object.fromEntries(weights.map(([name, { begin }]) => [name, begin])),
    },
    large: weights.map(([name]) => name),
    claims: Object.fromEntries(weights.map(([name, { size }]) => [name, size])),
  };
}

/** Qwen3-4B's sizes, with all of the blocks' weights in one tensor. */
const qwen = {
  ...{ model_type: "qwen3", hidden_size: 2560, num_hidden_layers: 36, intermediate_size: 9728 },
  ...{ num_attention_heads: 32, num_key_value_heads: 8, head_dim: 128, vocab_size: 151936 },
  ...{ rms_norm_eps: 1e-6, rope_theta: 1e6, max_position_embeddings: 40960, tie_word_embeddings: true },
};

describe("models fit", () => {
  test("tells of a model on the hub what it takes, and fetches no weights", async () => {
    const blocks = 2_000_000_000;
    const shapes: Shapes = {
      "model.embed_tokens.weight": ["BF16", [151936, 2560]],
      "model.layers.0.mlp.up_proj.weight": ["BF16", [blocks / 2560, 2560]],
    };
    const server = hub.serve({ "org/name": repo(qwen, shapes) });
    const { code, one } = await fit("org/name", "--context", "32768");
    const weights = 2 * (151936 * 2560 + blocks);
    expect(one).toMatchObject({
      source: "hub",
      model_type: "qwen3",
      supported: true,
      parameters: weights / 2,
      memory: { weights },
      disk: { files: 2, folder: hub.cache, fits: true },
    });
    expect(one.disk!.needed).toBeGreaterThan(weights);
    // 36 layers, keys and values, 8 heads of 128, two bytes each.
    const perToken = 36 * 2 * 8 * 128 * 2;
    expect(one.context!.limit).toBe(40960);
    expect(one.context!.steps.map(({ tokens, bytes }) => [tokens, bytes])).toEqual(
      [4096, 16384, 32768, 40960].map((tokens) => [tokens, tokens * perToken]),
    );
    // The embedding is the head too, so all is read.
    expect(one.speed!.bytes_per_token).toBe(weights + 512 * perToken);
    expect(one.speed!.tokens_per_second).toBeCloseTo(
      one.speed!.bandwidth.bytes_per_second / one.speed!.bytes_per_token,
    );
    expect(code).toBe(one.fits ? 0 : 5);
    const ranges = server.seen.filter(({ path }) => path.endsWith(".safetensors")).map(({ range }) => range);
    expect(ranges).toEqual(["bytes=0-131071"]);
  });

  test("says it to people, with the verdict first", async () => {
    hub.serve({ "org/name": repo(qwen, { "model.embed_tokens.weight": ["BF16", [151936, 2560]] }) });
    const { code, out } = await run("org/name");
    expect(code).toBe(0);
    expect(out).toMatch(/^org\/name {2}fits\n {2}type {5}qwen3\n {2}weights {2}778 MB, 389 million parameters\n/);
    expect(out).toMatch(/\n {2}disk {5}778 MB to download in 2 files, [\d.,]+ GB free on /);
    expect(out).toMatch(/\n {2}memory {3}needs 1\.5 GB and its cache, [\d.]+ GB free \(.+\)\n/);
    expect(out).toMatch(
      /\n {2}context {2}up to 40,960 tokens fit, all that it was made for\n {11}4,096 tokens: 604 MB\n/,
    );
    expect(out).toMatch(/\n {2}speed {4}up to [\d.]+ tokens a second: one reads 853 MB, at [\d.]+ [GM]B a second/);
  });

  test("counts the experts that a token uses, and no rows of an embedding beside a head", async () => {
    const moe = {
      ...qwen,
      model_type: "qwen3_moe",
      tie_word_embeddings: false,
      num_experts: 128,
      num_experts_per_tok: 8,
    };
    const more = { moe_intermediate_size: 768, decoder_sparse_step: 1, mlp_only_layers: [], norm_topk_prob: true };
    const shapes: Shapes = {
      "model.embed_tokens.weight": ["BF16", [1000, 100]],
      "lm_head.weight": ["BF16", [1000, 100]],
      "model.layers.0.mlp.experts.0.up_proj.weight": ["BF16", [1600, 1000]],
      "model.layers.0.mlp.shared_experts.up_proj.weight": ["BF16", [300, 100]],
    };
    hub.serve({ "org/moe": repo({ ...moe, ...more }, shapes) });
    const { one } = await fit("org/moe");
    expect(one.parameters).toBe(100_000 + 100_000 + 1_600_000 + 30_000);
    expect(one.active_parameters).toBe(100_000 + 100_000 + 30_000);
  });

  test("ends with 5 where memory or disk are too small, and says by how much", async () => {
    const large: Shapes = { "model.layers.0.mlp.up_proj.weight": ["BF16", [1_000_000_000, 1_000_000]] };
    hub.serve({ "org/large": repo(qwen, large) });
    const { code, out } = await run("org/large");
    expect(code).toBe(5);
    expect(out).toMatch(/^org\/large {2}does not fit\n/);
    expect(out).toMatch(/ disk {5}2,000,000 GB to download .* GB too few\n/);
    expect(out).toMatch(/ memory {3}needs 2,000,001 GB and its cache, .* GB too few\n/);
    const { one } = await fit("org/large");
    expect(one).toMatchObject({ fits: false, disk: { fits: false }, memory: { fits: false }, speed: null });
    expect(one.context!.largest).toBe(0);
  });

  test("a type that does not run here does not fit", async () => {
    hub.serve({ "org/other": repo({ ...qwen, model_type: "nothing_yet" }, { x: ["BF16", [10, 10]] }) });
    const { code, one } = await fit("org/other");
    expect([code, one.supported, one.context, one.fits]).toEqual([5, false, null, false]);
  });

  test("looks at folders, GGUF files, and the demo; nothing is to be downloaded then", async () => {
    const demo = await fit("demo");
    expect(demo.one).toMatchObject({ source: "local", disk: null, fits: true, model_type: "llama" });
    expect(demo.one.context!.limit).toBe(1024);
    const folder = join(hub.folder, "a-model");
    mkdirSync(folder, { recursive: true });
    const file = join(folder, "tiny.gguf");
    writeFileSync(file, ggufBytes(tinyLlama));
    for (const path of [file, folder]) {
      const { one } = await fit(path);
      expect(one).toMatchObject({ source: "local", model_type: "llama", disk: null, fits: true });
      expect(one.parameters).toBe(32 * 4 + 3 * 32 + 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 32);
    }
  });

  test("measures once, where the machine is not busy", async () => {
    const first = (await fit("demo")).one.speed!.bandwidth;
    const second = (await fit("demo")).one.speed!.bandwidth;
    expect(first.bytes_per_second).toBeGreaterThan(1e8);
    if (!first.busy) expect(second).toMatchObject({ cached: true, bytes_per_second: first.bytes_per_second });
  });

  test.each([
    ["no name", [], 2, /models fit needs the name of a model/],
    ["no such folder", ["./nowhere"], 3, /there is no folder \.\/nowhere/],
    ["no such repo", ["org/absent"], 3, /org\/absent/],
    ["a GGUF file that is not here", ["hf:org/name:Q4_K_M"], 3, /cannot be looked at before it is downloaded/],
    ["a gated one", ["org/gated"], 4, /gated/],
    ["a header that is none", ["org/broken"], 1, /model-00001\.safetensors of org\/broken is not sound/],
    ["a header that ends early", ["org/short"], 1, /is not sound: it ends after/],
    ["a config.json that is none", ["org/config"], 1, /config\.json of org\/config is not sound/],
  ])("%s", async (_, words, code, message) => {
    const sound = repo(qwen, { x: ["BF16", [10, 10]] });
    const name = "model-00001.safetensors";
    hub.serve({
      "org/gated": { ...sound, gated: true },
      "org/broken": { files: { ...sound.files, [name]: new Uint8Array(64).fill(255) } },
      "org/short": { ...sound, files: { ...sound.files, [name]: new Uint8Array(4) }, claims: { [name]: 5000 } },
      "org/config": { ...sound, files: { ...sound.files, "config.json": "[]" } },
    });
    const run_ = await run(...words);
    expect([run_.code, run_.problems]).toEqual([code, expect.stringMatching(message)]);
    expect(run_.out).toBe("");
  });

  test("offline, only what is here is looked at", async () => {
    const { code, problems } = await runCommand(["models", "fit", "org/name"], { env: { HF_HUB_OFFLINE: "1" } });
    expect(code).toBe(3);
    expect(problems).toContain("Unset HF_HUB_OFFLINE");
  });
});
