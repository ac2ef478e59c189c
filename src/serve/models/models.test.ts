/** Models that are loaded when they are asked for, and unloaded when they are not. */
import { afterEach, describe, expect, test } from "bun:test";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { testServer } from "../../../test/serve";
import { until } from "../../../test/until";
import { demoFolder } from "../../demo/folder";
import { openModel } from "../../generate/open-model";
import * as mx from "../../mlx";
import { MemoryBudget } from "../engine/memory-budget";
import { PrefixFiles } from "../prefixes/prefix-files";
import { engineDefaults } from "../settings";
import { Models, type ModelsOptions } from "./models";

const opened: string[] = [];
const events: string[] = [];
const all: Models[] = [];
afterEach(async () => {
  await Promise.all(all.splice(0).map((models) => models.dispose()));
  opened.splice(0);
  events.splice(0);
});

const named = (name: string) => ({ name, open: name });

function models(options: Partial<ModelsOptions> = {}): Models {
  const made = new Models({
    open: async ({ open }) => {
      opened.push(open!);
      return openModel(demoFolder());
    },
    budget: new MemoryBudget(1e12),
    settings: engineDefaults,
    onEvent: ({ type, model }) => void events.push(`${type} ${model}`),
    ...options,
  });
  all.push(made);
  return made;
}

const use = async (from: Models, name?: string) => {
  const { served, release } = await from.lease(name);
  release();
  return served.name;
};

describe("names", () => {
  test("any name gets the only model there is", async () => {
    const one = models({ main: named("main") });
    for (const name of [undefined, "", "default_model", "gpt-4o", "main", "main:latest", "../../etc/passwd"]) {
      expect(await use(one, name)).toBe("main");
    }
    expect(opened).toEqual(["main"]);
  });

  test("of several, each gets its own, and others are told that there is none", async () => {
    const some = models({ main: named("main"), allowed: [named("other"), named("./folder")] });
    expect(await use(some)).toBe("main");
    expect(await use(some, "other")).toBe("other");
    expect(await use(some, "./folder")).toBe("./folder");
    expect(await some.lease("third").catch((error) => error)).toMatchObject({ status: 404, facts: { param: "model" } });
    expect((await some.list()).map(({ name }) => name)).toEqual(["main", "other", "./folder"]);
  });

  test("those that are found by name are, and no other is opened", async () => {
    const found = models({
      find: async (name) => (name === "org/cached" ? named(name) : null),
      others: async () => [named("org/cached")],
    });
    expect(await use(found, "org/cached")).toBe("org/cached");
    for (const name of ["org/else", "/etc", "../x"]) {
      expect(await found.lease(name).catch((error) => error)).toMatchObject({ status: 404 });
    }
    expect(await found.lease().catch((error) => error)).toMatchObject({ status: 400 });
    expect(opened).toEqual(["org/cached"]);
  });

  test("adapters by the operator's names", async () => {
    const paths: (string | undefined)[] = [];
    const open: ModelsOptions["open"] = ({ adapterPath }) => {
      paths.push(adapterPath);
      return openModel(demoFolder());
    };
    const some = models({ main: named("main"), open, adapters: new Map([["pirate", "/adapters/pirate"]]) });
    (await some.lease("main", { adapter: "pirate" })).release();
    (await some.lease("main")).release();
    expect(paths).toEqual(["/adapters/pirate", undefined]);
    const unknown = some.lease("main", { adapter: "/adapters/pirate" });
    expect(await unknown.catch((error) => error)).toMatchObject({ status: 404, facts: { param: "adapters" } });
  });
});

describe("memory", () => {
  const bytes = async () => {
    const { served, release } = await models({ main: named("one") }).lease();
    release();
    return served.nbytes;
  };

  test("the model that was not used for the longest time makes room, unless it is in use", async () => {
    const size = await bytes();
    events.splice(0);
    const two = models({
      allowed: ["a", "b", "c"].map(named),
      budget: new MemoryBudget(2.5 * size),
      size: async () => size,
    });
    await use(two, "a");
    const held = await two.lease("b");
    await use(two, "a");
    await use(two, "c");
    expect(events).toEqual(["loading a", "loaded a", "loading b", "loaded b", "loading c", "unloaded a", "loaded c"]);
    // All that is loaded is in use: the next one waits.
    const other = await two.lease("c");
    let isThere = false;
    const waiting = two.lease("a").then((lease) => {
      isThere = true;
      return lease;
    });
    await Bun.sleep(20);
    expect(isThere).toBe(false);
    held.release();
    (await waiting).release();
    other.release();
    expect(events.slice(-3)).toEqual(["loading a", "unloaded b", "loaded a"]);
  });

  test("a model that never fits is refused before it is opened", async () => {
    const small = models({ main: named("large"), budget: new MemoryBudget(1e6), size: async () => 5e9 });
    expect(await small.lease().catch((error) => error)).toMatchObject({
      status: 503,
      facts: { code: "out_of_memory" },
    });
    expect(opened).toEqual([]);
  });

  test("several requests for one load it once; a failure is told to all, and tried again", async () => {
    let fails = true;
    const open: ModelsOptions["open"] = async ({ open }) => {
      opened.push(open!);
      if (fails) throw new Error("the disk is gone");
      return openModel(demoFolder());
    };
    const some = models({ main: named("main"), open });
    const failed = await Promise.all([1, 2].map(() => some.lease().catch((error) => error.message)));
    expect(failed).toEqual(["the disk is gone", "the disk is gone"]);
    fails = false;
    opened.splice(0);
    for (const { release } of await Promise.all([1, 2, 3].map(() => some.lease()))) release();
    expect(opened).toEqual(["main"]);
  });

  test("idle models go after their time, and nothing stays behind", async () => {
    mx.random.seed(0);
    const before = mx.liveHandles();
    const some = models({ main: named("main"), keepAlive: 0.02 });
    await use(some);
    expect(some.loaded).toHaveLength(1);
    await until(() => some.loaded.length === 0 && mx.liveHandles() === before);
  });

  test("there is rest once nobody has asked for a while, and not before", async () => {
    let rests = 0;
    const { promise: rested, resolve } = Promise.withResolvers<void>();
    const onRest = () => {
      rests++;
      resolve();
    };
    const some = models({ main: named("main"), allowed: [named("other")], onRest, restAfter: 0.02 });
    const lease = await some.lease("main");
    await use(some, "other");
    await Bun.sleep(60);
    expect(rests).toBe(0);
    lease.release();
    await rested;
    expect(rests).toBe(1);
  });
});

test("models change under load, and each answers by itself", async () => {
  const server = testServer({ models: { main: named("a"), allowed: [named("b")], keepAlive: 0 } });
  const body = { messages: [{ role: "user", content: "What is 27 + 58?" }] };
  const ask = async (model: string) =>
    ((await (await server.post("/v1/chat/completions", { ...body, model })).json()) as { model: string }).model;
  const names = Array.from({ length: 10 }, (_, i) => (i % 2 ? "a" : "b"));
  expect(await Promise.all(names.map(ask))).toEqual(names);
  expect((await server.post("/v1/chat/completions", { ...body, model: "c" })).status).toBe(404);
  await server.stop();
});

describe("prompts on disk", () => {
  const body = { messages: [{ role: "user", content: "Tell me a story about a fox." }], max_tokens: 20 };
  const run = async (folder: string, version = "1") => {
    const problems: string[] = [];
    const prefixFiles = new PrefixFiles(folder, version, (problem) => void problems.push(problem));
    const server = testServer({ models: { prefixFiles } });
    const answer = (await (await server.post("/v1/chat/completions", body)).json()) as {
      choices: { message: { content: string } }[];
      usage: { prompt_tokens_details: { cached_tokens: number } };
    };
    await server.stop();
    return {
      problems,
      text: answer.choices[0]!.message.content,
      cached: answer.usage.prompt_tokens_details.cached_tokens,
    };
  };

  test("are gone on from after a restart, of the same model and version only", async () => {
    const folder = await mkdtemp(join(tmpdir(), "mlxlm-prefixes-"));
    const cold = await run(folder);
    expect(cold.cached).toBe(0);
    const warm = await run(folder);
    expect(warm.cached).toBeGreaterThan(10);
    expect(warm.text).toBe(cold.text);
    expect((await run(folder, "2")).cached).toBe(0);
    expect((await readdir(folder)).length).toBe(2);
    await rm(folder, { recursive: true });
  });

  test("that are damaged are left out, with a word", async () => {
    const folder = await mkdtemp(join(tmpdir(), "mlxlm-prefixes-"));
    const { text } = await run(folder);
    const [model] = await readdir(folder);
    const [name] = await readdir(join(folder, model!));
    const path = join(folder, model!, name!);
    const bytes = Buffer.from(await Bun.file(path).arrayBuffer());
    const damages = [
      bytes.subarray(0, 100),
      Buffer.from("garbage"),
      Buffer.from(bytes.toString("latin1").replace(/\[\d+,/, "[99999,"), "latin1"),
      Buffer.from(bytes.toString("latin1").replace(/\[(\d+),/, "[$1]"), "latin1"),
    ];
    for (const damage of damages) {
      await Bun.write(path, damage);
      const again = await run(folder);
      expect(again).toMatchObject({ text, cached: 0 });
      expect(again.problems.join()).toMatch(/left out/);
      await rm(join(folder, model!), { recursive: true });
      await Bun.write(join(folder, model!, "x"), "");
    }
    await rm(folder, { recursive: true });
  });
});
