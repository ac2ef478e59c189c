/**
 * One rank of server-models.test.ts: the first opens, unloads and refuses models and adapters, of which some are not the same
 * in the folder that each rank runs in. Prints what was refused, and how many handles there were each time that a model was opened.
 */
import { join } from "node:path";
import { follow } from "../../src/generate/ranks/follow";
import { tellEnd } from "../../src/generate/ranks/orders";
import * as mx from "../../src/mlx";
import { opener } from "../../src/serve/catalogue";
import { MemoryBudget } from "../../src/serve/engine/memory-budget";
import { followedOpener } from "../../src/serve/follow";
import { Models } from "../../src/serve/models/models";
import { engineDefaults } from "../../src/serve/settings";

export interface ModelsOfRank {
  handles: number[];
  refused: string[];
}

const [, , folder, ...more] = process.argv;
const group = mx.distributed.init({ strict: true });
// Random numbers have a key from the first model on.
mx.random.seed(0);
process.chdir(join(folder!, `rank${group.rank}`));
const pipeline = more.includes("--pipeline");
const handles: number[] = [];
const refused: string[] = [];

const counted =
  <S, T>(open: (source: S) => T) =>
  (source: S): T => {
    handles.push(mx.liveHandles());
    return open(source);
  };

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
  await attempt("./late");
  await attempt("./broken");
  await models.unload("demo");
  await attempt("demo", "pirate");
  await attempt("demo");
  await models.dispose();
  handles.push(mx.liveHandles());
  tellEnd();
}

if (group.rank === 0) await lead();
else {
  await follow(counted(followedOpener({ settings: engineDefaults, pipeline }, () => {})));
  handles.push(mx.liveHandles());
}
console.log(JSON.stringify({ handles, refused } satisfies ModelsOfRank));
process.exit();
