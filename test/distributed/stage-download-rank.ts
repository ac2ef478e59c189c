/** One rank of stage-download.test.ts: opens its layers of a model of the hub, twice, into a cache of its own. Prints what came. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { openModel } from "../../src/generate/open-model";
import * as mx from "../../src/mlx";
import { weightBytes } from "../../src/serve/catalogue";
import { row } from "../parity/decode";
import { report } from "./rank-end";

const [, , folder, ...prompt] = process.argv;
const group = mx.distributed.init({ strict: true });
process.env.HF_HUB_CACHE = join(folder!, `cache-${group.rank}`);

async function open() {
  mx.random.seed(7);
  const opened = await openModel("org/name", { pipeline: true });
  const logits = [
    ...mx.scope(
      () =>
        opened.model
          .forward(row(prompt.map(Number)))
          .at(0, -1)
          .toArray() as Float32Array,
    ),
  ];
  const drawn = mx.random.state.get().toList();
  opened.model.dispose();
  return {
    logits,
    drawn,
    files: readdirSync(opened.folder)
      .filter((name) => name.endsWith(".safetensors"))
      .sort(),
  };
}

// A server asks how large a model is ahead of opening it.
const bytes = await weightBytes({ name: "it", open: "org/name" }, { pipeline: true });
const first = await open();
// What came stays, and nothing else is wanted.
const again = await open();
const before = mx.liveHandles();
await open();
report({ bytes, first, again, leaked: mx.liveHandles() - before });
