#!/usr/bin/env bun
/**
 * A server under mixed requests for as long as it is told: short answers whose greedy text is known, streams that are left,
 * bodies that are wrong, other models and adapters. At the end handles and memory are what they were after the first
 * minute's work, no text was wrong, and SIGTERM's way out is clean. Each quarter of the time memory is looked at.
 *
 *   bun run soak [--minutes 5] [--clients 8]
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { demoFolder } from "../src/demo/folder";
import { openModel } from "../src/generate/open-model";
import * as mx from "../src/mlx";
import { randomAdapter } from "./adapter";
import { testServer } from "./serve";

const { values } = parseArgs({
  options: { minutes: { type: "string", default: "5" }, clients: { type: "string", default: "8" } },
});
const [minutes, clients] = [Number(values.minutes), Number(values.clients)];

const folder = mkdtempSync(join(tmpdir(), "mlxlm-soak-"));
const adapters = new Map(["pirate", "poet"].map((name) => [name, join(folder, name)]));
for (const [seed, path] of [...adapters.values()].entries()) {
  await randomAdapter(path, (await openModel(demoFolder())).model, { rank: 8, seed, spread: 0.04 });
}
const server = testServer({
  open: undefined,
  models: {
    open: ({ adapterPath }) => openModel(demoFolder(), { adapterPath }),
    main: { name: "demo", open: "demo" },
    allowed: ["second", "third"].map((name) => ({ name, open: name })),
    adapters,
    keepAlive: 2,
  },
  settings: { maxQueue: 64 },
});

const questions = ["What is 27 + 58?", "Tell me a story about a fox.", "Hello there", "What is 11 + 22?"];
const counts = { answers: 0, left: 0, refused: 0, wrong: 0 };
const expected = new Map<string, string>();

const draw = (below: number) => Math.floor(Math.random() * below);
const pick = <T>(list: readonly T[]): T => list[draw(list.length)]!;

async function answer(): Promise<void> {
  const body = {
    model: pick(["demo", "demo", "demo", "second", "third"]),
    adapters: pick([undefined, undefined, "pirate", "poet"]),
    messages: [{ role: "user", content: pick(questions) }],
    max_tokens: pick([4, 16, 40]),
  };
  const response = await server.post("/v1/chat/completions", body);
  if (response.status !== 200) throw new Error(`${response.status}: ${await response.text()}`);
  const { choices } = (await response.json()) as { choices: { message: { content: string } }[] };
  // All models are the demo: the text depends on the adapter, the question and the length.
  const key = JSON.stringify([body.adapters, body.messages, body.max_tokens]);
  const text = choices[0]!.message.content;
  const known = expected.get(key) ?? text;
  expected.set(key, known);
  counts.answers++;
  if (text !== known) {
    counts.wrong++;
    console.log(`wrong: ${key}\n  ${JSON.stringify(known)}\n  ${JSON.stringify(text)}`);
  }
}

async function leave(): Promise<void> {
  const controller = new AbortController();
  const messages = [{ role: "user", content: pick(questions) }];
  const response = await server.post("/v1/chat/completions", { messages, stream: true, max_tokens: 400 }, controller);
  await response.body!.getReader().read();
  controller.abort();
  counts.left++;
}

async function refused(): Promise<void> {
  const [body, status] = pick([
    ["{", 400],
    [{ messages: [] }, 400],
    [{ messages: [{ role: "user", content: "x" }], adapters: "none" }, 404],
    [{ messages: [{ role: "user", content: "x" }], temperature: "warm" }, 400],
    [{ model: "fourth", messages: [{ role: "user", content: "x" }] }, 404],
  ] as const);
  const response = await server.post("/v1/chat/completions", body);
  await response.text();
  if (response.status !== status) throw new Error(`${JSON.stringify(body)} got ${response.status}`);
  counts.refused++;
}

/** All that is in use when nobody asks and no model is loaded. */
async function atRest(): Promise<{ handles: number; resident: number }> {
  for (let i = 0; i < 600 && server.context.models.loaded.length > 0; i++) await Bun.sleep(20);
  // Its lines would be kept by this script, not by the server.
  server.log.length = 0;
  Bun.gc(true);
  return { handles: mx.liveHandles(), resident: process.memoryUsage.rss() / 1e6 };
}

async function work(seconds: number): Promise<void> {
  const end = performance.now() + seconds * 1000;
  const client = async () => {
    while (performance.now() < end) await pick([answer, answer, answer, answer, leave, refused])();
  };
  await Promise.all(Array.from({ length: clients }, client));
}

try {
  await work(Math.min(60, (minutes * 60) / 4));
  const before = await atRest();
  const memory = [before.resident];
  let after = before;
  for (let quarter = 0; quarter < 4; quarter++) {
    await work((minutes * 60) / 4);
    after = await atRest();
    memory.push(after.resident);
  }
  await server.stop();
  const { answers, left, refused, wrong } = counts;
  console.log(`${answers} answers, ${left} left in the middle, ${refused} refused, ${wrong} wrong`);
  console.log(`handles ${before.handles} → ${after.handles}`);
  console.log(`resident ${memory.map((megabytes) => megabytes.toFixed(0)).join(" → ")} MB`);
  const isFlat = after.handles <= before.handles && after.resident < before.resident * 1.15 + 50;
  if (wrong > 0 || !isFlat) process.exitCode = 1;
} finally {
  rmSync(folder, { recursive: true });
}
