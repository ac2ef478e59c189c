/** Drafted tokens as a user asks for them. */
import { afterAll, describe, expect, test } from "bun:test";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { demoFolder } from "../src/demo/folder";
import * as mx from "../src/mlx";
import { fixture } from "./parity/fixtures";
import { type FormulaModel, formulaTensors } from "./parity/formula-model";
import { runCommand } from "./run-command";

const question = "Tell me a story about a fox.";

const generate = async (...words: string[]) => {
  const run = await runCommand(["generate", "demo", question, "--max-tokens", "60", "--json", ...words]);
  return { ...run, result: JSON.parse(run.out || "{}") };
};

test("generate: drafts from the text and from a model give the same answer, and figures", async () => {
  const { text, drafts } = (await generate()).result;
  expect(drafts).toBeUndefined();
  const byText = (await generate("--draft", "ngram")).result;
  expect(byText.text).toBe(text);
  expect(byText.drafts.passes).toBeWithin(20, 61);
  const byModel = (await generate("--draft-model", "demo")).result;
  expect(byModel.text).toBe(text);
  // The model is its own draft.
  expect(byModel.drafts).toEqual({ proposed: 45, accepted: 45, acceptance: 1, passes: 15 });
});

test("generate: figures for a person have a line about drafts", async () => {
  const { problems } = await runCommand(["generate", "demo", question, "--max-tokens", "20", "--draft", "ngram"]);
  expect(problems).toMatch(/^Drafts: \d+ of \d+ drafted tokens right \([\d.]+%\), \d+ passes$/m);
});

test("chat: drafts from the text", async () => {
  const chat = (...words: string[]) => runCommand(["chat", "--model", "demo", "--json", ...words], { stdin: question });
  const [plain, drafted] = [await chat(), await chat("--draft", "ngram")].map(({ out }) => JSON.parse(out));
  expect(plain.drafts).toBeUndefined();
  expect(drafted.text).toBe(plain.text);
  expect(drafted.drafts.passes).toBe(drafted.generation_tokens - drafted.drafts.accepted);
});

test.each<[string[], RegExp]>([
  [["--draft", "model"], /--draft must be ngram, not "model"/],
  [["--draft", "ngram", "--draft-model", "demo"], /--draft and --draft-model exclude each other/],
  [["--draft", "ngram", "--num-draft-tokens", "0"], /--num-draft-tokens/],
])("generate %p is refused", async (words, message) => {
  const { code, problems } = await runCommand(["generate", "demo", question, ...words]);
  expect(code).toBe(2);
  expect(problems).toMatch(message);
});

describe("with draft layers", () => {
  const folder = mkdtempSync(join(tmpdir(), "mlxlm-drafts-"));
  afterAll(() => rmSync(folder, { recursive: true }));
  const at = (name: string) => join(folder, name);

  /** A tiny checkpoint with draft layers, which knows the demo's tokens. */
  async function publish(type: string): Promise<string> {
    const model = fixture<FormulaModel>(`mtp/${type}.json`);
    const { vocab_size } = JSON.parse(readFileSync(join(demoFolder(), "config.json"), "utf8"));
    const path = at(type);
    mkdirSync(path);
    for (const name of ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]) {
      cpSync(join(demoFolder(), name), join(path, name));
    }
    writeFileSync(join(path, "config.json"), JSON.stringify({ ...model.config, vocab_size }));
    const weights = Object.entries(model.weights).map(([name, [rows, ...rest]]): [string, number[]] => [
      name,
      /embed_tokens|lm_head|shared_head\.head/.test(name) ? [vocab_size, ...rest] : [rows!, ...rest],
    ]);
    mx.scope(() => {
      mx.saveSafetensors(
        join(path, "model.safetensors"),
        formulaTensors({ ...model, weights: Object.fromEntries(weights) }),
      );
    });
    return path;
  }

  test("convert keeps them, generate and chat draft by them", async () => {
    const source = await publish("glm4_moe");
    const kept = at("kept");
    const words = ["--hf-path", source, "-q", "--q-group-size", "32", "--keep-mtp", "--mlx-path", kept];
    expect((await runCommand(["convert", ...words])).code).toBe(0);
    expect(existsSync(join(kept, "mtp.safetensors"))).toBe(true);

    const generate = async (...more: string[]) => {
      const { out } = await runCommand(["generate", kept, question, "--max-tokens", "16", "--json", ...more]);
      return JSON.parse(out);
    };
    const [plain, drafted] = [await generate(), await generate("--mtp", "2")];
    expect(drafted.text).toBe(plain.text);
    expect(drafted.drafts.proposed).toBeGreaterThan(10);
    expect(plain.drafts).toBeUndefined();

    const chat = await runCommand(["chat", "--model", kept, "--json", "--mtp", "1", "-m", "8"], {
      stdin: "Hello\nWhy?",
    });
    const answers = chat.out
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(answers.map(({ drafts }) => drafts.passes)).toEqual([8, 8]);
  });

  test("a layer for each token is needed where there are several", async () => {
    const { code, problems } = await runCommand(["generate", await publish("mimo_v2_flash"), question, "--mtp", "3"]);
    expect(code).toBe(2);
    expect(problems).toMatch(/--mtp is 3, but the model has 2 draft layers[\s\S]*from 1 to 2/);
  });

  test.each<[string[], number, RegExp]>([
    [["demo", question, "--mtp", "1"], 3, /models of type "llama" have no draft layers that mlxlm knows/],
    [["demo", question, "--mtp", "1", "--draft", "ngram"], 2, /--draft and --mtp exclude each other/],
    [["demo", question, "--mtp", "0"], 2, /--mtp must be at least 1/],
    [["demo", question, "--mtp", "17"], 2, /--mtp must be at most 16/],
  ])("generate %p is refused", async (words, code, message) => {
    const run = await runCommand(["generate", ...words]);
    expect([run.code, run.problems]).toEqual([code, expect.stringMatching(message)]);
  });
});
