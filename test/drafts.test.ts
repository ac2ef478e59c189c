/** Drafted tokens as a user asks for them. */
import { expect, test } from "bun:test";
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
