import { describe, expect, test } from "bun:test";
import { generateFlags } from "../../cmd/generate.flags";
import { ExitCode, UserError } from "../errors";
import { type FlagTable, flag, globalFlags } from "./flags";
import { parseFlags, wasGiven } from "./parse";

const table = { ...generateFlags, ...globalFlags };
const parse = (...words: string[]) => parseFlags(words, table, "generate");

/** Flags of mlx_lm.generate 0.32.2 with their defaults, as its own parser has them. */
const reference: Record<string, unknown> = {
  model: undefined,
  trustRemoteCode: false,
  adapterPath: undefined,
  extraEosToken: [],
  systemPrompt: undefined,
  prompt: "hello",
  image: [],
  prefillResponse: undefined,
  maxTokens: 100,
  temp: 0,
  topP: 1,
  minP: 0,
  topK: 0,
  xtcProbability: 0,
  xtcThreshold: 0.1,
  minTokensToKeep: 1,
  seed: undefined,
  ignoreChatTemplate: false,
  useDefaultChatTemplate: false,
  chatTemplateConfig: undefined,
  verbose: true,
  maxKvSize: undefined,
  prefillStepSize: undefined, // 2048 in mlx-lm, and here but where GPUs share layers
  promptCacheFile: undefined,
  quantizeActivations: false,
  kvBits: undefined,
  kvGroupSize: 64,
  quantizedKvStart: 5000,
  draftModel: undefined,
  numDraftTokens: 3,
};

test("generate has the reference's 30 flags with its defaults", () => {
  expect(Object.keys(reference).length).toBe(30);
  const { json: _, device: __, debug: ___, help: ____, pipeline: _____, ...values } = parse();
  expect(values as Record<string, unknown>).toEqual(reference);
});

describe("words that stand alone", () => {
  test.each<[string[], string | undefined, string]>([
    [["demo"], "demo", "hello"],
    [["demo", "Why?"], "demo", "Why?"],
    [["demo", "--temp", "1", "Why?"], "demo", "Why?"],
    [["--model", "demo", "Why?"], "demo", "Why?"],
    [["demo", "-p", "Why?"], "demo", "Why?"],
    [["Why is that?"], undefined, "Why is that?"],
    [["a folder", "Why?"], "a folder", "Why?"],
  ])("%p", (words, model, prompt) => {
    const values = parse(...words);
    expect([values.model, values.prompt]).toEqual([model, prompt]);
    expect(wasGiven(values, "prompt")).toBe(prompt !== "hello");
  });
});

test.each([
  ["--temperature", "--temp"],
  ["--max_new_tokens", "--max-tokens"],
])("%s means %s", (typed, meant) => {
  try {
    parse(typed, "1");
    expect.unreachable();
  } catch (error) {
    expect((error as UserError).hint).toStartWith(`Did you mean ${meant}?`);
  }
});

describe("is understood", () => {
  const cases: [words: string[], name: string, value: unknown][] = [
    [["--model", "demo"], "model", "demo"],
    [["--model=demo"], "model", "demo"],
    [["--prompt", "a = b"], "prompt", "a = b"],
    [["--prompt=a=b"], "prompt", "a=b"],
    [["--prompt", ""], "prompt", ""],
    [["--prompt="], "prompt", ""],
    [["--prompt", "-"], "prompt", "-"],
    [["-p", "hi"], "prompt", "hi"],
    [["--prompt", "007"], "prompt", "007"],
    [["-p", "first", "-p", "last"], "prompt", "last"],
    [["-m", "5"], "maxTokens", 5],
    [["-m5"], "maxTokens", 5],
    [["-phello"], "prompt", "hello"],
    [["-p=hi"], "prompt", "hi"],
    [["--prompt", "- a list"], "prompt", "- a list"],
    [["--prompt", "--foo bar"], "prompt", "--foo bar"],
    [["--prompt=-x"], "prompt", "-x"],
    [["--top-k", "-1"], "topK", -1],
    [["--top-p", "0.9"], "topP", 0.9],
    [["--hel"], "help", true],
    [["--max-tokens", "-1"], "maxTokens", -1],
    [["--max-t", "7"], "maxTokens", 7],
    [["--temp", ".5"], "temp", 0.5],
    [["--temp", "1e-1"], "temp", 0.1],
    [["--seed", "4294967296"], "seed", 4294967296],
    [["--ignore-chat-template"], "ignoreChatTemplate", true],
    [["--ignore"], "ignoreChatTemplate", true],
    [["--verbose", "False"], "verbose", false],
    [["--verbose", "f"], "verbose", false],
    [["--verbose", "no"], "verbose", true],
    [["--extra-eos-token", "a", "b", "--seed", "1"], "extraEosToken", ["a", "b"]],
    [["--extra-eos-token", "a", "--extra-eos-token", "b"], "extraEosToken", ["a", "b"]],
    [["--chat-template-config", '{"enable_thinking": false}'], "chatTemplateConfig", { enable_thinking: false }],
    [["--device", "cpu"], "device", "cpu"],
    [["--json"], "json", true],
  ];
  test.each(cases)("%p", (words, name, value) => {
    expect((parse(...words) as Record<string, unknown>)[name]).toEqual(value);
  });
});

describe("is refused", () => {
  const cases: [words: string[], message: RegExp, hint?: RegExp][] = [
    [["--modle", "x"], /no flag --modle/, /Did you mean --model\?/],
    [["-z"], /no flag -z/],
    [["one", "two", "three"], /"three" belongs to no flag/],
    [["--model", "a", "b", "c"], /"c" belongs to no flag/],
    [["--prompt", "a", "b"], /"b" belongs to no flag/, /quotes/],
    [["--"], /no flag --/],
    [["--max", "5"], /--max could be --max-tokens, --max-kv-size/],
    [["--model"], /--model needs a value/],
    [["--model", "--json"], /--model needs a value/],
    [["--extra-eos-token"], /needs a value/],
    [["--json=yes"], /--json takes no value/],
    [["--max-tokens", "many"], /must be a whole number, not "many"/],
    [["--max-tokens", "1.5"], /must be a whole number/],
    [["--max-tokens", ""], /must be a whole number/],
    [["--max-tokens", "-2"], /at least -1/],
    [["--max-tokens", "0x10"], /must be a whole number/],
    [["--prompt", "-x"], /needs a value/, /--prompt=VALUE/],
    [["--temp", "hot"], /--temp must be a number/],
    [["--temp", "-1"], /at least 0/],
    [["--top-p", "3"], /--top-p must be at most 1/],
    [["--min-p", "2"], /--min-p must be at most 1/],
    [["--xtc-probability", "2"], /--xtc-probability must be at most 1/],
    [["--temp", "Infinity"], /must be a number/],
    [["--xtc-threshold", "0.6"], /at most 0.5/],
    [["--prefill-step-size", "0"], /at least 1/],
    [["--min-tokens-to-keep", "0"], /at least 1/],
    [["--device", "tpu"], /must be cpu or gpu/],
    [["--chat-template-config", "{"], /must be JSON/],
    [["--chat-template-config", "[1]"], /must be a JSON object/],
    [["--kv-bits", "9"], /--kv-bits must be at most 8/],
    [["--num-draft-tokens", "0"], /at least 1/],
    [["--__proto__", "x"], /no flag/],
    [["--constructor", "x"], /no flag/],
  ];
  test.each(cases)("%p", (words, message, hint = /generate --help|for example|later/i) => {
    let error: unknown;
    try {
      parse(...words);
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toBeInstanceOf(UserError);
    expect((error as UserError).message).toMatch(message);
    expect((error as UserError).hint).toMatch(hint);
    expect((error as UserError).code).toBe(ExitCode.usage);
  });
});

test("a flag that comes with a later version is refused", () => {
  const table = { later: flag.list("what comes later", { placeholder: "FILE …", notYet: true }) };
  let error: unknown;
  try {
    parseFlags(["--later", "a.png", "b.png"], table, "x");
  } catch (thrown) {
    error = thrown;
  }
  expect((error as UserError).message).toMatch(/--later is not available yet/);
  expect((error as UserError).hint).toMatch(/later/);
  expect((error as UserError).code).toBe(ExitCode.usage);
});

test("a word alone is asked about as a model, where the model has a flag or was named", () => {
  const refusal = (words: string[], table: FlagTable) => {
    try {
      parseFlags(words, table, "x");
      return expect.unreachable();
    } catch (error) {
      return `${(error as UserError).message}; ${(error as UserError).hint}`;
    }
  };
  const byFlag = { model: flag.path("m"), path: flag.path("p"), dequantize: flag.switch("d", { alias: ["d"] }) };
  expect(refusal(["demo", "-d"], byFlag)).toMatch(/"demo" belongs to no flag; Did you mean --model demo\?/);
  expect(refusal(["demo", "--model", "x"], byFlag)).not.toMatch(/Did you mean/);
  expect(refusal(["--path", "a", "b"], byFlag)).not.toMatch(/two models/);
  const alone = { model: flag.path("m", { positional: true }), seed: flag.integer("s") };
  expect(refusal(["demo", "--model", "x"], alone)).toMatch(/^two models are named/);
  expect(refusal(["demo", "other"], alone)).toMatch(/^two models are named/);
  expect(refusal(["demo", "is", "nice"], alone)).toMatch(/belongs to no flag/);
});

test("what is required is asked for, all of it at once", () => {
  const table = { prompt: flag.text("p", { required: true }), file: flag.path("f", { required: true }) };
  const { prompt }: { prompt: string } = parseFlags(["--prompt", "x", "--file", "y"], table, "x");
  expect(prompt).toBe("x");
  expect(() => parseFlags([], table, "x")).toThrow("--prompt and --file must be given");
  expect(() => parseFlags(["--file", "y"], table, "x")).toThrow("--prompt must be given");
});

test("defaults and ranges come from the table", () => {
  const small = { steps: flag.integer("steps", { default: 3, min: 1 }), name: flag.text("name") };
  const values = parseFlags([], small, "x");
  const steps: number = values.steps;
  const name: string | undefined = values.name;
  expect([steps, name]).toEqual([3, undefined]);
});
