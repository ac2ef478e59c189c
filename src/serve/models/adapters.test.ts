/** Adapters by request: side by side in one batch where they can be, each with what it would say alone. */
import { afterAll, afterEach, beforeAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type OpenAI from "openai";
import { randomAdapter } from "../../../test/adapter";
import { type TestServer, type TestServerOptions, testServer } from "../../../test/serve";
import { demoFolder } from "../../demo/folder";
import { answer } from "../../generate/answer";
import { LoneStepper } from "../../generate/lone-stepper";
import { openModel } from "../../generate/open-model";
import * as mx from "../../mlx";
import { MemoryBudget } from "../engine/memory-budget";
import { PrefixFiles } from "../prefixes/prefix-files";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-adapters-"));
const adapters = new Map(["pirate", "poet", "length"].map((name) => [name, join(folder, name)]));
const demo = async () => (await openModel(demoFolder())).model;

beforeAll(async () => {
  await randomAdapter(adapters.get("pirate")!, await demo(), { rank: 16, seed: 4, spread: 0.055 });
  await randomAdapter(adapters.get("poet")!, await demo(), { rank: 32, seed: 2, spread: 0.045 });
  await randomAdapter(adapters.get("length")!, await demo(), {
    rank: 4,
    seed: 3,
    dora: true,
    spread: 0.3,
    keys: ["self_attn.v_proj"],
  });
});
afterAll(() => rmSync(folder, { recursive: true }));

const running: TestServer[] = [];
afterEach(async () => {
  await Promise.all(running.splice(0).map((server) => server.stop()));
});

function server(options: TestServerOptions["models"] = {}): { server: TestServer; events: string[] } {
  const events: string[] = [];
  const made = testServer({
    models: {
      adapters,
      open: ({ adapterPath }) => openModel(demoFolder(), { adapterPath }),
      onEvent: ({ type, model }) => void events.push(`${type} ${model}`),
      ...options,
    },
  });
  running.push(made);
  return { server: made, events };
}

const question = "Tell me a story about a fox and a bear who share a house in the woods.";

async function ask(at: TestServer, name?: string): Promise<{ text: string; cached: number }> {
  const messages = [{ role: "user", content: question }];
  const response = await at.post("/v1/chat/completions", { messages, max_tokens: 16, adapters: name });
  expect(response.status).toBe(200);
  const { choices, usage } = (await response.json()) as OpenAI.ChatCompletion;
  return { text: choices[0]!.message.content!, cached: usage!.prompt_tokens_details!.cached_tokens! };
}

async function alone(name?: string): Promise<string> {
  const { model, tokenizer } = await openModel(demoFolder(), { adapterPath: name && adapters.get(name) });
  let said = "";
  const prompt = { messages: [{ role: "user" as const, content: question }] };
  for await (const part of answer(
    { prompt, maxTokens: 16, takeApart: true },
    { stepper: new LoneStepper(model), tokenizer },
  )) {
    if (part.type === "text") said += part.text;
  }
  model.dispose();
  return said;
}

const names = ["pirate", undefined, "poet", "pirate", undefined, "length", "poet"];

test("different adapters and none, side by side, say what each says alone", async () => {
  const expected = new Map<string | undefined, string>();
  for (const name of new Set(names)) expected.set(name, await alone(name));
  expect(new Set(expected.values()).size).toBe(4);
  const { server: at, events } = server();
  const all = await Promise.all(names.map((name) => ask(at, name)));
  expect(all.map(({ text }) => text)).toEqual(names.map((name) => expected.get(name)!));
  // One copy of the model for the low-rank adapters, another one for the kind that cannot share.
  expect(events.filter((event) => event.startsWith("loading")).sort()).toEqual([
    "loading demo",
    "loading demo with length",
  ]);
  // What was read with one adapter is no beginning for another.
  const again = await Promise.all(names.map((name) => ask(at, name)));
  expect(again.map(({ text }) => text)).toEqual(names.map((name) => expected.get(name)!));
  expect(again.every(({ cached }) => cached > 0)).toBe(true);
});

test("an adapter goes for another one where memory is short, and comes again", async () => {
  const ample = new MemoryBudget(1e12);
  const { server: probe } = server({ budget: ample });
  await ask(probe);
  const model = ample.weights;
  const first = await ask(probe, "pirate");
  const pirate = ample.weights - model;
  expect(pirate).toBeGreaterThan(0);
  // A poet takes two times as much, and as much again while it runs.
  const { server: at, events } = server({ budget: new MemoryBudget(model + 4.5 * pirate) });
  await ask(at, "pirate");
  await ask(at, "poet");
  await ask(at, "pirate");
  expect(events).toContain("unloaded demo with pirate");
  expect((await ask(at, "pirate")).text).toBe(first.text);
});

test("prompts that were read with an adapter are kept over restarts, apart from the others", async () => {
  const kept = join(folder, "kept");
  const files = () => new PrefixFiles(kept, "0", () => {});
  const { server: one } = server({ prefixFiles: files() });
  const said = await ask(one, "poet");
  await ask(one);
  await one.stop();
  expect((await readdir(kept)).length).toBe(2);
  const { server: other } = server({ prefixFiles: files() });
  expect(await ask(other, "poet")).toEqual({ text: said.text, cached: expect.any(Number) });
  expect((await ask(other, "poet")).cached).toBeGreaterThan(0);
});

test("an adapter that does not fit is an answer with a status, and the others go on", async () => {
  const other = join(folder, "other");
  await Bun.write(
    join(other, "adapter_config.json"),
    JSON.stringify({ num_layers: 1, lora_parameters: { rank: 2, scale: 1 } }),
  );
  const x = mx.zeros([3, 2]);
  await mx.saveSafetensors(join(other, "adapters.safetensors"), new Map([["model.layers.0.mlp.up_proj.lora_a", x]]));
  x.dispose();
  const { server: at } = server({ adapters: new Map([...adapters, ["other", other]]) });
  const good = ask(at, "pirate");
  const messages = [{ role: "user", content: question }];
  const bad = await at.post("/v1/chat/completions", { messages, adapters: "other" });
  expect(bad.status).toBe(503);
  expect(JSON.stringify(await bad.json())).toContain("incompatible tensors");
  expect((await good).text.length).toBeGreaterThan(0);
});
