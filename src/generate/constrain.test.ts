import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { thinkingTokenizer } from "../../test/thinking-tokenizer";
import { tinyMamba, tinyModel } from "../../test/tiny-model";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import type { AnswerFormat } from "../sample/grammar/formats";
import { loadTokenizer } from "../text/tokenizer";
import { type AnswerRequest, answer, type End } from "./answer";
import { BatchStepper } from "./batch";
import { constrain } from "./constrain";
import { DraftStepper } from "./draft-stepper";
import { LoneStepper } from "./lone-stepper";
import type { Stepper } from "./stepper";

const tokenizer = await loadTokenizer(join(import.meta.dir, "../../test/fixtures/checkpoint"));
const vocab_size = 400;
const prompt = await tokenizer.encode("Say it:");

interface Answered {
  text: string;
  end: End;
}

async function answered(
  stepper: Stepper,
  format: AnswerFormat,
  request: Partial<AnswerRequest> = {},
  given = tokenizer,
): Promise<Answered> {
  const { vocabSize: vocabularySize } = stepper.model;
  const own = (request.prompt as number[] | undefined) ?? prompt;
  const constraint = await constrain(format, { tokenizer: given, vocabularySize, prompt: own, tools: request.tools });
  const sampler = { temp: 1 };
  const options = { prompt: own, constraint, maxTokens: 400, seed: 3, sampler, ...request };
  let text = "";
  for await (const part of answer(options, { stepper, tokenizer: given })) {
    if (part.type === "end") return { text, end: part };
    if (part.type === "text") text += part.text;
  }
  throw new Error("an answer without an end");
}

const person = {
  type: "object",
  properties: {
    name: { type: "string", maxLength: 6 },
    age: { type: "integer", minimum: 0, maximum: 150 },
    tags: { type: "array", items: { enum: ["red", "green", "blue"] }, maxItems: 3 },
  },
  required: ["name", "age", "tags"],
  additionalProperties: false,
} as const;

function expectPerson(text: string): void {
  const { name, age, tags, ...others } = JSON.parse(text);
  expect(others).toEqual({});
  expect([...name].length).toBeLessThanOrEqual(6);
  expect(age).toBeWithin(0, 151);
  expect(tags.length).toBeLessThanOrEqual(3);
  for (const tag of tags) expect(["red", "green", "blue"]).toContain(tag);
}

const formats: [AnswerFormat, (text: string) => void][] = [
  [{ type: "json_schema", schema: person }, expectPerson],
  [{ type: "regex", pattern: "[A-Z]{3}-\\d{4}" }, (text) => expect(text).toMatch(/^[A-Z]{3}-\d{4}$/)],
  [
    { type: "choice", choices: ["yes", "no", 'a "quoted"\nline'] },
    (text) => expect(["yes", "no", 'a "quoted"\nline']).toContain(text),
  ],
  [{ type: "grammar", grammar: 'root ::= "<" [a-c]{2,4} ">"' }, (text) => expect(text).toMatch(/^<[a-c]{2,4}>$/)],
];

const model = await tinyModel({ vocab_size });
const steppers: Record<string, (model: LanguageModel) => Promise<Stepper> | Stepper> = {
  alone: (model) => new LoneStepper(model),
  "in a batch": (model) => new BatchStepper(model),
  "with a draft": async (model) =>
    new DraftStepper(model, { model: await tinyModel({ vocab_size }, { seed: 4 }), tokens: 3 }),
  "with itself as a draft": (model) => new DraftStepper(model, { model, tokens: 3 }),
};

describe("answers fit their grammar to the end", () => {
  for (const [name, make] of Object.entries(steppers)) {
    for (const [format, check] of formats) {
      test(`${name}: ${format.type}`, async () => {
        const stepper = await make(model);
        for (const seed of [1, 2, 3]) {
          const { text, end } = await answered(stepper, format, { seed });
          check(text);
          expect([end.finish_reason, end.complete]).toEqual(["stop", true]);
        }
        const greedy = await answered(stepper, format, { sampler: undefined });
        check(greedy.text);
        stepper.dispose();
      });
    }
  }

  test("with a recurrent model", async () => {
    const stepper = new LoneStepper(await tinyModel({ ...tinyMamba, vocab_size }));
    expectPerson((await answered(stepper, formats[0]![0])).text);
  });
});

test("alone and in a batch, greedy answers are the same", async () => {
  // Without forced text, which is cut into other tokens than the model would choose.
  const format: AnswerFormat = { type: "regex", pattern: "[a-z ]{10,20}\\.[0-9]+x" };
  const batch = new BatchStepper(model);
  const [alone, batched, drafted] = await Promise.all([
    answered(new LoneStepper(model), format, { sampler: undefined }),
    answered(batch, format, { sampler: undefined }),
    answered(new DraftStepper(model, { model, tokens: 2 }), format, { sampler: undefined }),
  ]);
  expect(batched.text).toBe(alone.text);
  expect(drafted.text).toBe(alone.text);
  batch.dispose();
});

test("rows of a batch with grammars and without do not disturb each other", async () => {
  const stepper = new BatchStepper(model);
  const free = async (seed: number) => {
    let text = "";
    const request = { prompt, maxTokens: 40, seed, sampler: { temp: 1 } };
    for await (const part of answer(request, { stepper, tokenizer })) if (part.type === "text") text += part.text;
    return text;
  };
  const alone = await free(9);
  const [first, text, second] = await Promise.all([
    answered(stepper, formats[0]![0], { seed: 5 }),
    free(9),
    answered(stepper, formats[1]![0], { seed: 6 }),
  ]);
  expectPerson(first.text);
  formats[1]![1](second.text);
  expect(text).toBe(alone);
  stepper.dispose();
});

describe("forced text", () => {
  const schema = {
    type: "object",
    properties: { description: { const: "always the same words" } },
    required: ["description"],
  };

  test("is written without steps of its own, and makes no other text", async () => {
    const counted = await tinyModel({ vocab_size });
    let steps = 0;
    const { forward } = counted;
    counted.forward = function (...given) {
      steps++;
      return forward.apply(this, given);
    };
    const { text, end } = await answered(new LoneStepper(counted), { type: "json_schema", schema });
    expect(text).toBe('{"description": "always the same words"}');
    expect(end.complete).toBe(true);
    expect(steps).toBeLessThan(end.generation_tokens / 2);
  });

  test("is read with the prompt in a batch, and with the newest token where there are drafts", async () => {
    for (const make of [
      (model: LanguageModel) => new BatchStepper(model),
      (model: LanguageModel) => new DraftStepper(model, { from: "ngram", tokens: 2 }),
    ]) {
      const counted = await tinyModel({ vocab_size });
      let steps = 0;
      const { forward } = counted;
      counted.forward = function (...given) {
        steps++;
        return forward.apply(this, given);
      };
      const stepper = make(counted);
      const { text, end } = await answered(stepper, { type: "json_schema", schema });
      expect(text).toBe('{"description": "always the same words"}');
      expect(end.complete).toBe(true);
      expect(steps).toBeLessThan(end.generation_tokens / 2);
      const cut = await answered(stepper, { type: "json_schema", schema }, { maxTokens: 5 });
      expect(cut.end).toMatchObject({ finish_reason: "length", complete: false, generation_tokens: 5 });
      stepper.dispose();
      counted.dispose();
    }
  });

  test("stays within max-tokens", async () => {
    const { text, end } = await answered(new LoneStepper(model), { type: "json_schema", schema }, { maxTokens: 5 });
    expect('{"description": "always the same words"}').toStartWith(text);
    expect(end).toMatchObject({ finish_reason: "length", complete: false, generation_tokens: 5 });
  });

  test("comes with log-probabilities where they are asked for", async () => {
    const { end } = await answered(new LoneStepper(model), { type: "json_schema", schema }, { logprobs: 1 });
    expect(end.complete).toBe(true);
  });
});

describe("what may come before", () => {
  test("a thought is free; the answer behind it is not", async () => {
    const thinker = await thinkingTokenizer();
    const { startTokens, endTokens } = thinker.thinking!;
    const thinking = await tinyModel({ vocab_size });
    const stepper = new LoneStepper(thinking);
    // Ends the thought at its fifth token.
    let count = 0;
    const end = (_: mx.Tensor, logits: mx.Tensor) =>
      ++count === 5 ? logits.addAt([":", endTokens], mx.array([1000], "float32")) : logits;
    const open = [...prompt, ...startTokens];
    const request = { prompt: open, logitsProcessors: [end], takeApart: true };
    const {
      text,
      end: { complete, generated },
    } = await answered(stepper, formats[1]![0], request, thinker);
    expect(generated.indexOf(endTokens[0]!)).toBe(4);
    formats[1]![1](text);
    expect(complete).toBe(true);
  });

  test("an answer may begin with a thought, unless the prompt ends with one", async () => {
    const thinker = await thinkingTokenizer();
    const { startTokens, endTokens } = thinker.thinking!;
    const allowed = async (prompt: readonly number[]) => {
      const constraint = await constrain(formats[1]![0], { tokenizer: thinker, vocabularySize: vocab_size, prompt });
      const extras = constraint.row()?.extras;
      constraint.dispose();
      return extras;
    };
    expect(await allowed(prompt)).toEqual(startTokens);
    expect(await allowed([...prompt, ...startTokens, ...endTokens])).toEqual([]);
  });
});

describe("errors", () => {
  const failure = async (format: AnswerFormat) => {
    const options = { tokenizer, vocabularySize: vocab_size, prompt };
    return constrain(format, options).then(
      () => null,
      (error) => error.message as string,
    );
  };

  test("name what cannot be held to", async () => {
    expect(await failure({ type: "json_schema", schema: { not: {} } })).toBe(
      'JSON schema: "not" at # is not supported',
    );
    expect(await failure({ type: "regex", pattern: "a(?=b)" })).toContain('"(?=b"');
    expect(await failure({ type: "regex", pattern: "(" })).toContain("no regular expression");
    expect(await failure({ type: "choice", choices: [] })).toBe("there is nothing to choose from");
    expect(await failure({ type: "grammar", grammar: "root ::= other" })).toContain('"other" is not defined');
    expect(await failure({ type: "grammar", grammar: `root ::= "${"a".repeat(300_000)}"` })).toContain("too long");
    expect(await failure({ type: "tools", tools: [] })).toContain("not trained to call tools");
  });
});

test("nothing stays behind", async () => {
  const stepper = new LoneStepper(model);
  const batch = new BatchStepper(model);
  const run = async () => {
    await answered(stepper, formats[0]![0]);
    await answered(batch, formats[0]![0]);
    await answered(stepper, formats[0]![0], { maxTokens: 3 });
    await expect(answered(stepper, formats[0]![0], { maxTokens: 0 })).rejects.toThrow("max-tokens");
    await expect(answered(stepper, formats[0]![0], { prompt: [] })).rejects.toThrow("prompt is empty");
  };
  await run();
  const [handles, grammars] = [mx.liveHandles(), mx.grammar.liveGrammars()];
  await run();
  expect(mx.liveHandles()).toBe(handles);
  // Tokenizers of other tests take their vocabularies along when they are collected.
  expect(mx.grammar.liveGrammars()).toBeLessThanOrEqual(grammars);
  batch.dispose();
});
