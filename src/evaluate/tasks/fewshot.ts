/** Which rows become examples. */
import { UserError } from "../../errors";
import type { PythonRandom } from "../../mersenne";
import type { Doc } from "./task-template";

/** @param asked the row in question, where it may be among the examples' rows. @throws UserError for too few rows */
export type FewshotSampler = (count: number, asked: Doc | null) => Doc[];

const isOther = (asked: Doc) => (doc: Doc) => !Bun.deepEquals(doc.row, asked.row, true);

function enough(docs: readonly Doc[], count: number, task: string): void {
  if (docs.length >= count) return;
  throw new UserError(`${task} asks for ${count} examples, but has only ${docs.length} rows for them`, {
    hint: "Take fewer: --num-shots N",
  });
}

/** Drawn at random; one more than asked for where the row in question may be drawn. */
function drawn(docs: readonly Doc[], random: PythonRandom, task: string): FewshotSampler {
  return (count, asked) => {
    if (count === 0) return [];
    enough(docs, asked ? count + 1 : count, task);
    if (!asked) return random.sample(docs, count);
    const others = random
      .sample(docs, count + 1)
      .filter(isOther(asked))
      .slice(0, count);
    if (others.length === count) return others;
    // The row is there more than once, and was drawn twice.
    const pool = docs.filter(isOther(asked));
    enough(pool, count, task);
    return random.sample(pool, count);
  };
}

/** The first ones. */
function first(docs: readonly Doc[], _: PythonRandom, task: string): FewshotSampler {
  return (count, asked) => {
    if (count === 0) return [];
    const pool = asked ? docs.filter(isOther(asked)) : docs;
    enough(pool, count, task);
    return pool.slice(0, count);
  };
}

const samplers = { default: drawn, first_n: first };

/** @throws UserError for a name that is no sampler's */
export function fewshotSampler(name: string, docs: readonly Doc[], random: PythonRandom, task: string): FewshotSampler {
  if (Object.hasOwn(samplers, name)) return samplers[name as keyof typeof samplers](docs, random, task);
  throw new UserError(`${task}: there is no sampler "${name}"`, {
    hint: `fewshot_config.sampler is one of ${Object.keys(samplers).join(", ")}.`,
  });
}
