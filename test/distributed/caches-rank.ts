/**
 * One rank of caches.test.ts: divides each tiny model of the parity suite among the ranks, lets it read a prompt, puts the
 * caches together and divides them again. Prints how far they are from one process's, or why it cannot be done.
 */
import { UserError } from "../../src/errors";
import { DividedCaches } from "../../src/generate/ranks/divided-caches";
import * as mx from "../../src/mlx";
import { type Cache, pipelineModel } from "../../src/models";
import { savedKindOf, savedStateOf, shardModel } from "../../src/nn";
import { row } from "../parity/decode";
import { fixture } from "../parity/fixtures";
import { type FormulaModel, formulaModel } from "../parity/formula-model";
import { report, resultsOf } from "./rank-end";

export type Moved = { refused: string } | { off: number; back: number };

const [, , way, ...names] = process.argv;
const group = mx.distributed.init({ strict: true });

/** The greatest distance between two caches' numbers; infinite where they are of another kind or form. */
function distance(ours: readonly Cache[], theirs: readonly Cache[]): number {
  const leaves = (layer: Cache) => mx.treeFlatten(savedStateOf(layer) as never) as [string, unknown][];
  if (ours.length !== theirs.length) return Number.POSITIVE_INFINITY;
  const each = ours.flatMap((layer, i) => {
    if (savedKindOf(layer).name !== savedKindOf(theirs[i]!).name) return [Number.POSITIVE_INFINITY];
    const others = new Map(leaves(theirs[i]!));
    return leaves(layer).map(([place, leaf]) => {
      const other = others.get(place);
      if (!(leaf instanceof mx.Tensor && other instanceof mx.Tensor))
        return leaf === other ? 0 : Number.POSITIVE_INFINITY;
      if (leaf.shape.join() !== other.shape.join()) return Number.POSITIVE_INFINITY;
      if (leaf.size === 0) return 0;
      return mx.scope(() => leaf.astype("float32").subtract(other.astype("float32")).abs().max().item());
    });
  });
  return Math.max(...each);
}

const dispose = (cache: readonly Cache[]) => {
  for (const layer of cache) layer.dispose();
};

async function move(name: string): Promise<Moved> {
  const expected = fixture<FormulaModel & { prompt: number[] }>(`models/${name}.json`);
  const model = await formulaModel(expected);
  const read = () => {
    const cache = model.makeCache();
    mx.scope(() => mx.eval(model.forward(row(expected.prompt), { cache })));
    mx.eval(cache.map(({ state }) => state));
    return cache;
  };
  const alone = read();
  const caches = new DividedCaches(model, group);
  try {
    if (way === "pipeline") pipelineModel(model, group);
    else shardModel(model, group);
    caches.divided(model);
    caches.check();
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    return { refused: error.message };
  } finally {
    if (group.rank > 0) dispose(alone);
  }
  const own = read();
  const whole = caches.gathered(own);
  const off = group.rank === 0 ? distance(whole, alone) : 0;
  const parts = caches.parts(group.rank === 0 ? whole : null);
  const back = distance(parts, own);
  for (const cache of [own, whole, parts, ...(group.rank === 0 ? [alone] : [])]) dispose(cache);
  model.dispose();
  return { off, back };
}

const results = await resultsOf(names, move);
// What is made once has been made.
const before = mx.liveHandles();
await move(names.find((name) => "off" in results[name]!)!);
if (mx.liveHandles() > before) throw new Error(`${mx.liveHandles() - before} tensors stay`);
report(results);
