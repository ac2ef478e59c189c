/** Answers of models with random weights to schemas, and a validator that knows nothing of grammars. */
import { createRequire } from "node:module";
import { join } from "node:path";
import Ajv, { type ValidateFunction } from "ajv";
import Ajv2020 from "ajv/dist/2020";
import addFormats from "ajv-formats";
import { answer } from "../../src/generate/answer";
import { constrain } from "../../src/generate/constrain";
import { LoneStepper } from "../../src/generate/lone-stepper";
import type { Stepper } from "../../src/generate/stepper";
import * as mx from "../../src/mlx";
import type { LogitsProcessor } from "../../src/sample";
import type { Schema } from "../../src/sample/grammar/schema-place";
import { loadTokenizer } from "../../src/text/tokenizer";
import { tinyHybrid, tinyMamba, tinyModel } from "../tiny-model";

const vocab_size = 400;
export const tokenizer = await loadTokenizer(join(import.meta.dir, "../fixtures/checkpoint"));
const prompt = await tokenizer.encode("Answer as JSON:");

/** Models of several kinds, each with its own random weights. */
export async function randomSteppers(count: number): Promise<Stepper[]> {
  const kinds = [{}, tinyMamba, { hidden_size: 64 }, tinyHybrid];
  const models = Array.from({ length: count }, (_, i) =>
    tinyModel({ ...kinds[i % kinds.length], vocab_size }, { seed: i + 1 }),
  );
  return (await Promise.all(models)).map((model) => new LoneStepper(model));
}

/** A model with random weights hardly ever ends a text: what closes one is made likelier. */
const closing = new Set([...tokenizer.eosTokenIds]);
for (const [id, bytes] of tokenizer.tokenBytes(vocab_size).entries()) {
  if (/^["\]}]/.test(Buffer.from(bytes).toString("latin1"))) closing.add(id);
}
const ends: LogitsProcessor = (_, logits) => {
  const ids = [...closing];
  return logits.addAt(
    [":", ids],
    mx.array(
      ids.map(() => 3),
      "float32",
    ),
  );
};

export interface SchemaAnswer {
  text: string;
  /** Whether it came to its end. */
  complete: boolean;
}

export async function answerTo(schema: Schema, stepper: Stepper, seed: number, maxTokens = 800): Promise<SchemaAnswer> {
  const { vocabSize: vocabularySize } = stepper.model;
  const constraint = await constrain({ type: "json_schema", schema }, { tokenizer, vocabularySize, prompt });
  const request = { prompt, constraint, maxTokens, seed, sampler: { temp: 1 }, logitsProcessors: [ends] };
  let text = "";
  for await (const part of answer(request, { stepper, tokenizer })) {
    if (part.type === "text") text += part.text;
    if (part.type === "end") return { text, complete: part.complete! };
  }
  throw new Error("an answer without an end");
}

const isOld = (schema: Schema) => "definitions" in schema || Array.isArray(schema.items);

/** The least common multiple of 1 to 40. */
const manyMultiples = 5342931457063200n;

/** A number that JavaScript would write otherwise, since it does not hold it, becomes a smaller one with the same remainders. */
const held = ((_: string, value: unknown, { source }: { source?: string }) =>
  !Number.isSafeInteger(value) && /^-?\d+$/.test(source ?? "") && source !== String(value)
    ? Number(BigInt(source!) % manyMultiples)
    : value) as (key: string, value: unknown) => unknown;

/** As JSON's values are equal. The one that ajv brings asks objects for their `valueOf`, which may be a key like any other. */
function equal(a: unknown, b: unknown): boolean {
  if (a === b || typeof a !== "object" || typeof b !== "object" || a === null || b === null) return a === b;
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  const [entries, others] = [Object.entries(a), b as Record<string, unknown>];
  const isIn = ([key, value]: [string, unknown]) => Object.hasOwn(others, key) && equal(value, others[key]);
  return entries.length === Object.keys(others).length && entries.every(isIn);
}
const ajvEqual = createRequire(import.meta.url)("ajv/dist/runtime/equal");
ajvEqual.default = Object.assign(equal, { code: ajvEqual.default.code });

/** @returns what is wrong with an answer, null for a valid one */
export function problemOf(text: string, schema: Schema): string | null {
  const ajv = isOld(schema) ? new Ajv({ strict: false }) : new Ajv2020({ strict: false });
  addFormats(ajv);
  const validate: ValidateFunction = ajv.compile(schema);
  let value: unknown;
  try {
    value = JSON.parse(text, held);
  } catch (error) {
    return (error as Error).message;
  }
  return validate(value) ? null : ajv.errorsText(validate.errors);
}
