/**
 * One rank of server-models.test.ts: the first opens, unloads and refuses models and adapters, of which some are not the same
 * in the folder that each rank runs in. Prints what was refused and answered, and how many handles there were each time that a model was opened.
 */
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { follow } from "../../src/generate/ranks/follow";
import { tellEnd } from "../../src/generate/ranks/orders";
import * as mx from "../../src/mlx";
import type { Decoder } from "../../src/nn";
import { opener } from "../../src/serve/catalogue";
import { MemoryBudget } from "../../src/serve/engine/memory-budget";
import { followedOpener } from "../../src/serve/follow";
import { Models } from "../../src/serve/models/models";
import { engineDefaults } from "../../src/serve/settings";
import { report } from "./rank-end";

export interface ModelsOfRank {
  handles: number[];
  refused: string[];
  answers: number[][];
}

const [, , folder, ...more] = process.argv;
const group = mx.distributed.init({ strict: true });
// Random numbers have a key from the first model on.
mx.random.seed(0);
process.chdir(join(folder!, `rank${group.rank}`));
const pipeline = more.includes("--pipeline");
const handles: number[] = [];
const refused: string[] = [];
const answers: number[][] = [];

const counted =
  <S, T>(open: (source: S) => T) =>
  (source: S): T => {
    handles.push(mx.liveHandles());
    return open(source);
  };

/** Answers beside the batch, one of them left in its midst: embeddings in the tokens' place are the same on all. */
async function answer(models: Models): Promise<void> {
  const { served, release } = await models.lease("demo");
  const { model, scheduler } = served;
  const prompt = [5, 6, 7, 8, 9];
  const { embedding } = (model as unknown as { model: Decoder }).model;
  const inputEmbeddings = mx.scope(() => embedding.forward(mx.array(prompt, "uint32")));
  for (const [most, request] of [
    [6, { prompt }],
    [6, { prompt, inputEmbeddings }],
    [2, { prompt, inputEmbeddings, logprobs: true }],
  ] as const) {
    const tokens: number[] = [];
    for await (const { token, logprobs } of scheduler.lone.steps({ ...request, maxTokens: 6 })) {
      logprobs?.dispose();
      tokens.push(token);
      if (tokens.length === most) break;
    }
    answers.push(tokens);
  }
  inputEmbeddings.dispose();
  release();
}

async function lead(): Promise<void> {
  const models = new Models({
    open: counted(opener({ pipeline })),
    budget: new MemoryBudget(1e12),
    settings: engineDefaults,
    main: { name: "demo", open: "demo" },
    allowed: ["./late", "./broken"].map((name) => ({ name, open: name })),
    adapters: new Map(["pirate", "late", "differs"].map((name) => [name, `./adapters/${name}`])),
  });
  const attempt = async (name: string, adapter?: string) => {
    try {
      (await models.lease(name, { adapter })).release();
    } catch (error) {
      refused.push((error as Error).message);
    }
  };
  await attempt("demo");
  await models.unload("demo");
  for (const adapter of ["pirate", "late", "differs", "pirate"]) await attempt("demo", adapter);
  // The other rank takes its time until this is there: it must not hold up what else happens here.
  setTimeout(() => writeFileSync("../go", ""), 100);
  await attempt("./late");
  await attempt("./broken");
  await models.unload("demo");
  await attempt("demo", "pirate");
  await attempt("demo");
  await answer(models);
  await models.dispose();
  handles.push(mx.liveHandles());
  tellEnd();
}

if (group.rank === 0) await lead();
else {
  const open = counted(followedOpener({ settings: engineDefaults, pipeline }, () => {}));
  await follow(async (source) => {
    while (source.name === "./late" && !existsSync("../go")) await Bun.sleep(5);
    return await open(source);
  });
  handles.push(mx.liveHandles());
}
report({ handles, refused, answers } satisfies ModelsOfRank);
