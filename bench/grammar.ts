/**
 * What a grammar costs: tokens a second with one over tokens a second without, in turn, for a model with a large
 * vocabulary. The answers without are as long as those with: a batch that answers leave has fewer rows. Without forced text, so that only the masks count; and with an ordinary schema, where forced text saves steps.
 *
 *   bun bench/grammar.ts [--rounds 7] [--vocabulary 128000] [--hidden 512] [--layers 8] [--batch 8]
 */
import { parseArgs } from "node:util";
import { BatchStepper } from "../src/generate/batch";
import { LoneStepper } from "../src/generate/lone-stepper";
import type { Stepper } from "../src/generate/stepper";
import * as mx from "../src/mlx";
import { createModel } from "../src/models";
import { Constraint } from "../src/sample/grammar/constraint";
import { checkFormat, type TextFormat } from "../src/sample/grammar/formats";
import { median } from "./median";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "7" },
    vocabulary: { type: "string", default: "128000" },
    hidden: { type: "string", default: "512" },
    layers: { type: "string", default: "8" },
    batch: { type: "string", default: "8" },
  },
});
const [vocab, hidden, layers] = [Number(values.vocabulary), Number(values.hidden), Number(values.layers)];
const tokens = 96;

mx.random.seed(1);
const model = await createModel(
  {
    ...{ model_type: "llama", hidden_size: hidden, num_hidden_layers: layers, intermediate_size: 3 * hidden },
    ...{ num_attention_heads: 8, num_key_value_heads: 4, rms_norm_eps: 1e-5, vocab_size: vocab },
  },
  "a benchmark",
);
mx.eval(model.parameters());

/** Bytes, made-up words with a space or without, and one in thirty of punctuation, as real vocabularies have. */
function vocabulary(): Uint8Array[] {
  let state = 1;
  const next = (below: number) => {
    state = (state * 1664525 + 1013904223) >>> 0;
    return (state >>> 8) % below;
  };
  const drawn = (letters: string, count: number) =>
    Array.from({ length: count }, () => letters[next(letters.length)]).join("");
  return Array.from({ length: vocab }, (_, id) => {
    if (id < 256) return Uint8Array.of(id);
    if (id === vocab - 1) return new Uint8Array();
    if (id % 30 === 0) return Buffer.from(drawn(".,:;\"'{}[]()<>/=-+*_ \n0123456789", 2 + next(3)));
    return Buffer.from((next(2) ? " " : "") + drawn("eeeetttaaaoooiiinnnssshhrrdlucmfwypvbgkqjxz", 2 + next(8)));
  });
}
const words = new mx.grammar.Vocabulary(vocabulary(), [vocab - 1]);

async function rate(
  stepper: Stepper,
  format: TextFormat | null,
  lengths: readonly number[],
): Promise<{ speed: number; lengths: number[] }> {
  const grammar = format && (await compiled(format));
  const one = async (maxTokens: number, first: number) => {
    const constraint = grammar && new Constraint(grammar.matcher(), { stops: [vocab - 1] });
    let [made, began] = [0, 0];
    for await (const _ of stepper.steps({ prompt: [first, 2, 3], maxTokens, constraint })) {
      if (made++ === 0) began = performance.now();
    }
    constraint?.dispose();
    return { made: made - 1, began, ended: performance.now() };
  };
  const all = await Promise.all(lengths.map(one));
  const seconds = (Math.max(...all.map(({ ended }) => ended)) - Math.min(...all.map(({ began }) => began))) / 1000;
  const speed = all.reduce((sum, { made }) => sum + made, 0) / seconds;
  return { speed, lengths: all.map(({ made }) => made + 1) };
}

const known = new Map<TextFormat, Promise<mx.grammar.Grammar>>();
function compiled(format: TextFormat): Promise<mx.grammar.Grammar> {
  const { language, text } = checkFormat(format);
  const grammar = known.get(format) ?? words.compile(language, text);
  known.set(format, grammar);
  return grammar;
}

const string = { type: "string", maxLength: 40 };
const person = {
  type: "object",
  properties: { name: string, occupation: string, biography: string, age: { type: "integer" } },
};
const formats: Record<string, TextFormat> = {
  "a string without an end": { type: "json_schema", schema: { type: "string", minLength: 2000 } },
  "any JSON object": { type: "json_object" },
  "an object of four properties": {
    type: "json_schema",
    schema: { ...person, required: Object.keys(person.properties) },
  },
};
const steppers: [string, Stepper, number][] = [
  ["alone", new LoneStepper(model), 1],
  [`${values.batch} in a batch`, new BatchStepper(model), Number(values.batch)],
];
for (const [place, stepper, count] of steppers) {
  for (const [name, format] of Object.entries(formats)) {
    const began = performance.now();
    await compiled(format);
    const compiling = performance.now() - began;
    const { lengths } = await rate(stepper, format, new Array<number>(count).fill(tokens));
    const [plain, held, ratios]: number[][] = [[], [], []];
    for (let i = 0; i < Number(values.rounds); i++) {
      plain!.push((await rate(stepper, null, lengths)).speed);
      held!.push((await rate(stepper, format, lengths)).speed);
      ratios!.push(held!.at(-1)! / plain!.at(-1)!);
    }
    const [a, b, c] = [plain, held, ratios].map((list) => median(list!));
    console.log(
      `${place}, ${name}: ${b!.toFixed(1)} tok/s with, ${a!.toFixed(1)} without: ${c!.toFixed(3)} (compiled in ${compiling.toFixed(0)} ms)`,
    );
  }
}
