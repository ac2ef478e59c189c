/** Several adapters, and several models, of a server on two ranks: each says what it says on one process. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { demoFolder, demoName } from "../../src/demo/folder";
import { openModel } from "../../src/generate/open-model";
import * as mx from "../../src/mlx";
import type { EngineSettings } from "../../src/serve/settings";
import { randomAdapter } from "../adapter";
import { type TestServer, testServer } from "../serve";
import { type LaunchedServer, launchServer } from "./launched-server";
import type { ModelsOfRank } from "./models-rank";
import { runRanks } from "./ranks";

type Server = Pick<LaunchedServer | TestServer, "post">;

const folder = mkdtempSync(join(tmpdir(), "mlxlm-ranks-models-"));
const adapters = new Map(["pirate", "poet", "length", "other"].map((name) => [name, join(folder, name)]));
const flag = [...adapters].map(([name, path]) => `${name}=${path}`).join();

beforeAll(async () => {
  const demo = async () => (await openModel(demoFolder())).model;
  const at = (name: string) => adapters.get(name)!;
  await randomAdapter(at("pirate"), await demo(), { rank: 16, seed: 4, spread: 0.055 });
  await randomAdapter(at("poet"), await demo(), { rank: 32, seed: 2, spread: 0.045, numLayers: 2 });
  const keys = ["self_attn.v_proj"];
  await randomAdapter(at("length"), await demo(), { rank: 4, seed: 3, dora: true, spread: 0.3, keys });
  cpSync(at("pirate"), at("other"), { recursive: true });
  const x = mx.zeros([3, 2]);
  await mx.saveSafetensors(
    join(at("other"), "adapters.safetensors"),
    new Map([["model.layers.0.mlp.up_proj.lora_a", x]]),
  );
  x.dispose();
});
afterAll(() => rmSync(folder, { recursive: true }));

const question = "Tell me a story about a fox and a bear who share a house in the woods.";
const names = ["pirate", undefined, "poet", "pirate", undefined, "length", "poet"];

async function ask(server: Server, more: object): Promise<{ text: string; cached: number }> {
  const messages = [{ role: "user", content: question }];
  const response = await server.post("/v1/chat/completions", { messages, max_tokens: 16, temperature: 0, ...more });
  if (response.status !== 200) throw new Error(await response.text());
  const { choices, usage } = (await response.json()) as {
    choices: { message: { content: string } }[];
    usage: { prompt_tokens_details: { cached_tokens: number } };
  };
  return { text: choices[0]!.message.content, cached: usage.prompt_tokens_details.cached_tokens };
}

/** Ranks in folders of their own: what the first one lacks nothing of, the other lacks, or has otherwise. */
async function ofRanks(way: readonly string[]): Promise<ModelsOfRank[]> {
  const at = mkdtempSync(join(folder, "ranks-"));
  for (const rank of [0, 1]) {
    const own = join(at, `rank${rank}`);
    cpSync(adapters.get("pirate")!, join(own, "adapters/pirate"), { recursive: true });
    cpSync(adapters.get(rank === 0 ? "pirate" : "poet")!, join(own, "adapters/differs"), { recursive: true });
    cpSync(demoFolder(), join(own, "broken"), { recursive: true });
    if (rank === 0) {
      cpSync(adapters.get("pirate")!, join(own, "adapters/late"), { recursive: true });
      cpSync(demoFolder(), join(own, "late"), { recursive: true });
    } else {
      // As large as it was, but no weights: where files are not compared, so that it fails when it is loaded.
      const file = join(own, "broken/model.safetensors");
      const bytes = readFileSync(file);
      writeFileSync(file, bytes.fill(255, 5000, 5100));
    }
  }
  return await runRanks("models-rank.ts", 2, { args: [at, ...way] });
}

describe.each([
  ["a part of each layer on each rank", []],
  ["some layers on each rank", ["--pipeline"]],
])("with %s", (_, way) => {
  test("what fails on one rank fails on all, which go on; what is unloaded is freed on all", async () => {
    const [first, other] = await ofRanks(way);
    expect(first!.refused).toEqual([
      expect.stringContaining("rank 1: there is no adapter folder ./adapters/late"),
      expect.stringContaining("the ranks have different adapters: rank 1 has another adapter"),
      expect.stringContaining("rank 1: "),
      expect.stringContaining("rank 1: "),
    ]);
    expect(first!.refused[2]).toContain("./late");
    const [tokens, embedded, left] = first!.answers;
    expect(tokens).toHaveLength(6);
    expect([embedded, left]).toEqual([tokens, tokens!.slice(0, 2)]);
    // The demo three times, and the two that cannot be opened while it is there; and at the end.
    for (const { handles } of [first!, other!]) {
      const [none, empty, held, , again, end] = handles;
      expect([empty, again, end]).toEqual([none, none, none]);
      expect(held).toBeGreaterThan(none!);
      expect(handles).toHaveLength(6);
    }
  });
});

describe.each([
  ["a part of each layer on each rank", []],
  ["some layers on each rank", ["--pipeline"]],
])("with %s", (_, way) => {
  test("adapters, different ones and none, side by side, say what each says on one process", async () => {
    const single = testServer({
      models: { adapters, open: ({ adapterPath }) => openModel(demoFolder(), { adapterPath }) },
    });
    const texts = async (server: Server) =>
      (await Promise.all(names.map((adapter) => ask(server, { adapters: adapter })))).map(({ text }) => text);
    const alone = await texts(single);
    await single.stop();
    expect(new Set(alone).size).toBe(4);

    const server = await launchServer(["-n", "2"], ["--model", "demo", "--adapters", flag, ...way]);
    expect(await texts(server)).toEqual(alone);
    // What was read with one adapter is no beginning for another.
    const again = await Promise.all(names.map((adapter) => ask(server, { adapters: adapter })));
    expect(again.map(({ text }) => text)).toEqual(alone);
    expect(again.every(({ cached }) => cached > 0)).toBe(true);
    const good = ask(server, { adapters: "poet" });
    const refused = async (adapters: string) => {
      const response = await server.post("/v1/chat/completions", {
        messages: [{ role: "user", content: "?" }],
        adapters,
      });
      return [response.status, await response.text()];
    };
    expect(await refused("other")).toEqual([503, expect.stringContaining("incompatible tensors")]);
    expect(await refused("none")).toEqual([404, expect.stringContaining('there is no adapter \\"none\\"')]);
    expect((await good).text).toBe(alone[2]!);
    expect(await server.stop()).toBe(0);
  });
});

describe("models", () => {
  const other = join(folder, "another");
  const both = ["demo", other];

  beforeAll(async () => {
    cpSync(demoFolder(), other, { recursive: true });
    mx.random.seed(5);
    const file = join(other, "model.safetensors");
    const { arrays } = mx.scope(() => mx.loadSafetensors(file));
    const changed = mx.scope(
      () =>
        new Map(
          [...arrays].map(([name, x]) => [
            name,
            mx.random.normal({ shape: x.shape }).multiply(0.01).add(x).astype(x.dtype),
          ]),
        ),
    );
    mx.eval([...changed.values()]);
    await mx.saveSafetensors(file, changed);
    for (const x of [...arrays.values(), ...changed.values()]) x.dispose();
  });

  /** What each model says, several times at once. */
  async function said(server: Server): Promise<string[]> {
    const asked = [...both, ...both, demoName].map((model) => ask(server, { model, max_tokens: 24 }));
    return (await Promise.all(asked)).map(({ text }) => text);
  }

  async function alone(settings?: Partial<EngineSettings>): Promise<string[]> {
    const allowed = both.map((name) => ({ name, open: name }));
    const models = { main: undefined, allowed, open: ({ open }: { open?: string }) => openModel(open) };
    const single = testServer({ models, settings });
    const texts = await said(single);
    await single.stop();
    expect(new Set(texts).size).toBe(2);
    return texts;
  }

  const packed = ["--kv-bits", "8", "--kv-group-size", "32", "--quantized-kv-start", "0"];

  test.each([
    ["a part of each layer on each rank", [], {}],
    ["some layers on each rank", ["--pipeline"], {}],
    ["packed caches", packed, { kvQuantization: { bits: 8, groupSize: 32, start: 0 } }],
  ])("are loaded as they are asked for, and answer beside each other: %s", async (_, way, settings) => {
    const expected = await alone(settings);
    const server = await launchServer(["-n", "2"], ["--allowed-models", both.join(), ...way]);
    expect(await said(server)).toEqual(expected);
    const unknown = await server.post("/v1/completions", { model: "third", prompt: "?" });
    expect([unknown.status, await unknown.text()]).toEqual([404, expect.stringContaining("is not served here")]);
    // One goes and comes again while the other answers.
    const [, unloaded] = await Promise.all([
      said(server),
      server.post("/api/generate", { model: demoName, keep_alive: 0 }),
    ]);
    expect(unloaded.status).toBe(200);
    await server.post("/api/generate", { model: demoName, keep_alive: 0 });
    expect(await said(server)).toEqual(expected);
    expect(await server.stop()).toBe(0);
  });

  test("one goes for the other where there is memory for one alone", async () => {
    const expected = await alone();
    const server = await launchServer(["-n", "2"], ["--allowed-models", both.join(), "--max-memory", "0.006"]);
    for (const _ of both) {
      expect(await said(server)).toEqual(expected);
      const { models } = (await (await fetch(`${server.url}/api/ps`)).json()) as { models: object[] };
      expect(models).toHaveLength(1);
    }
    expect(await server.stop()).toBe(0);
  });
});
