/** Answers in a form: what people see of it. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ExitCode } from "../src/errors";
import { runCommand } from "./run-command";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-forms-"));
afterAll(() => rmSync(folder, { recursive: true }));

const written = (name: string, text: string) => {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
};

const schema = { type: "object", properties: { sum: { type: "integer", maximum: 999 } }, required: ["sum"] };
const file = written("schema.json", JSON.stringify(schema));

const generate = (words: readonly string[], stdin?: string) =>
  runCommand(["generate", "--model", "demo", "--prompt", "What is 2 + 3?", "--verbose", "false", ...words], { stdin });

const isSum = (text: string) => Number.isInteger(JSON.parse(text).sum);

describe("generate", () => {
  const forms: [name: string, words: string[], fits: (text: string) => boolean, stdin?: string][] = [
    ["a schema in a file", ["--json-schema", file], isSum],
    ["a schema on the command line", ["--json-schema", JSON.stringify(schema)], isSum],
    ["a schema from stdin", ["--json-schema", "-"], isSum, JSON.stringify(schema)],
    ["a pattern", ["--regex", "[A-F]{2}\\d"], (text) => /^[A-F]{2}\d$/.test(text)],
    ["a choice", ["--choice", "red, green,blue"], (text) => ["red", "green", "blue"].includes(text)],
    [
      "a grammar",
      ["--grammar", written("g.ebnf", 'root ::= "(" [0-9]{1,3} ")"')],
      (text) => /^\(\d{1,3}\)$/.test(text),
    ],
  ];
  for (const [name, words, fits, stdin] of forms) {
    test(name, async () => {
      const { code, out, problems } = await generate(words, stdin);
      expect([code, problems]).toEqual([0, ""]);
      expect(fits(out.trimEnd())).toBe(true);
    });
  }

  test("with a draft model, and drawn at random", async () => {
    const { code, out } = await generate([
      "--json-schema",
      file,
      "--draft-model",
      "demo",
      "--temp",
      "1",
      "--seed",
      "4",
    ]);
    expect([code, isSum(out)]).toEqual([0, true]);
  });

  test("an answer that was cut says so", async () => {
    const words = ["--json-schema", '{"type":"string","minLength":40}', "--max-tokens", "6"];
    const { code, problems } = await generate(words);
    expect(code).toBe(0);
    expect(problems).toBe(
      "mlxlm: the answer was cut after 6 tokens and does not fit its form to the end: --max-tokens 6 was too few\n",
    );
    const json = JSON.parse((await generate([...words, "--json"])).out);
    expect(json).toMatchObject({ finish_reason: "length", complete: false, generation_tokens: 6 });
  });
});

test("chat holds every answer to the form", async () => {
  const { code, out } = await runCommand(["chat", "--model", "demo", "--choice", "yes,no"], {
    stdin: "Is it?\nIs it not?\n",
  });
  expect(code).toBe(0);
  expect(out).toMatch(/^(yes|no)\n(yes|no)\n$/);
});

describe("what cannot be held to is said before a model is opened", () => {
  const cases: [words: string[], message: string][] = [
    [["--json-schema", '{"properties":{"a":{"not":{}}}}'], '"not" at #/properties/a is not supported'],
    [["--json-schema", '{"typ":"object"}'], '"typ" at # is not known (type?)'],
    [["--json-schema", "{"], "--json-schema is no JSON"],
    [["--json-schema", join(folder, "none.json")], "there is no file"],
    [["--json-schema", folder], "is a folder, not a file"],
    [["--regex", "a(?=b)"], "the pattern cannot be used"],
    [["--regex", "["], "no regular expression"],
    [["--choice", "a,b", "--regex", "a"], "--regex and --choice do not go together"],
    [["--json-schema", "-", "--prompt", "-"], "cannot both come from stdin"],
    [["--choice", "a,b", "--prefill-response", "x"], "--prefill-response does not go with"],
  ];
  test.each(cases)("%p", async (words, message) => {
    const { code, problems } = await runCommand(["generate", "--model", "no-such-model", "--prompt", "hi", ...words]);
    expect(problems).toContain(message);
    expect(code).toBe(ExitCode.usage);
  });
});
