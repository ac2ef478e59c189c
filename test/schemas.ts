/**
 * Answers to schemas, hand-made and by chance, by models with random weights: each is valid to `ajv`, or cut.
 *
 *   bun run schemas [--count 300] [--seed 1]
 */
import { parseArgs } from "node:util";
import fc from "fast-check";
import { answerTo, problemOf, randomSteppers } from "./schemas/answers";
import { schemas } from "./schemas/generated";
import { handmade } from "./schemas/handmade";

const { values } = parseArgs({ options: { count: { type: "string" }, seed: { type: "string" } } });
const [count, seed] = [Number(values.count ?? 300), Number(values.seed ?? 1)];
const steppers = await randomSteppers(4);
const made = Object.entries(handmade);
const byChance = fc.sample(schemas, { numRuns: Math.max(count - made.length, 0), seed });
const all = [...made, ...byChance.map((schema, i) => [`by chance, ${i}`, schema] as const)];

let [valid, cut, wrong] = [0, 0, 0];
const began = performance.now();
for (const [i, [name, schema]] of all.entries()) {
  for (const [j, stepper] of steppers.entries()) {
    const { text, complete } = await answerTo(schema, stepper, seed + i * steppers.length + j);
    const problem = complete ? problemOf(text, schema) : null;
    if (!complete) cut++;
    else if (problem === null) valid++;
    else {
      wrong++;
      console.log(`${name}: ${problem}\n  schema ${JSON.stringify(schema)}\n  answer ${text}`);
    }
  }
}
const seconds = ((performance.now() - began) / 1000).toFixed(0);
console.log(
  `${all.length} schemas, ${steppers.length} models: ${valid} valid, ${cut} cut, ${wrong} wrong (${seconds} s)`,
);
process.exit(wrong > 0 ? 1 : 0);
