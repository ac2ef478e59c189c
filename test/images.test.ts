/** generate --image: what people see of it, and that its tokens are mlx-lm's. */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ChatAnswerer } from "../src/cli/chat/answerer";
import type { Message } from "../src/cli/chat/conversation";
import { loadModel } from "../src/convert/load";
import { ExitCode } from "../src/errors";
import { imagesOf, readImages } from "../src/generate/images";
import * as mx from "../src/mlx";
import { loadTokenizer } from "../src/text/tokenizer";
import { runCommand } from "./run-command";
import { answer, pictures, runs, saveSeeingModel } from "./seeing-model";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-images-"));
afterAll(() => rmSync(folder, { recursive: true }));

const written = (name: string, picture: string) => {
  writeFileSync(join(folder, name), Buffer.from(pictures[picture]!.file, "base64"));
  return join(folder, name);
};
const [first, second] = [written("first.png", "PNG"), written("second.jpg", "JPEG")];

const model = (name: string, config: object) => saveSeeingModel(join(folder, name), config);
const seeing = model("seeing", runs[0]!.config);

const generate = (words: readonly string[]) =>
  runCommand(["generate", "--model", seeing, "--ignore-chat-template", "--verbose", "false", "-m", "12", ...words]);

const tokensOf = (text: string) =>
  text
    .trim()
    .split(/\s+/)
    .map((word) => Number(word.slice(1)));

test("two images in the places that the prompt has for them: mlx-lm's tokens", async () => {
  const { code, out, problems } = await generate(["--prompt", answer.asked, "--image", first, second]);
  expect([code, problems]).toEqual([0, ""]);
  expect(tokensOf(out)).toEqual(answer.tokens);
});

test("the same by a prompt that is read in steps", async () => {
  const { out } = await generate(["--prompt", answer.asked, "--image", first, second, "--prefill-step-size", "3"]);
  expect(tokensOf(out)).toEqual(answer.tokens);
});

test("without places the images stand ahead of the prompt", async () => {
  const asked = (prompt: string) => generate(["--prompt", prompt, "--image", second, first]);
  const [bare, placed] = [await asked("w13 w99"), await asked("<|patch|><|patch|>w13 w99")];
  expect([bare.code, bare.problems]).toEqual([0, ""]);
  expect(bare.out).toBe(placed.out);
  expect(tokensOf(bare.out)).toHaveLength(12);
  const [other] = [await generate(["--prompt", "w13 w99", "--image", first, second])];
  expect(other.out).not.toBe(bare.out);
});

test("chat: the first message is about them, and the conversation goes on", async () => {
  const talking = model("talking", runs[0]!.config);
  writeFileSync(join(talking, "chat_template.jinja"), "{% for m in messages %}{{ m.content }} {% endfor %}");
  mx.random.seed(0);
  mx.eval(mx.random.state.get());
  const before = mx.liveHandles();
  const loaded = await loadModel(talking);
  // Without the type's defaults, by which answers begin with a header.
  const tokenizer = await loadTokenizer(talking);
  const images = imagesOf(loaded.model, await readImages([first, second]));
  const answerer = new ChatAnswerer(loaded.model, tokenizer, { contextLength: null, images });
  const settings = { temp: 0, topP: 1, minP: 0, topK: 0, xtcProbability: 0, xtcThreshold: 0, seed: 0, maxTokens: 12 };
  const events = { onText() {}, onThought() {}, onPrefill() {}, signal: new AbortController().signal };
  const say = (messages: Message[]) => answerer.answer(messages, { ...settings, thinking: undefined }, events);
  const asked: Message = { role: "user", content: answer.asked };
  const one = await say([asked]);
  expect(tokensOf(one.text)).toEqual(answer.tokens);
  // What the images stand for is read from the cache now: the answer is that of the whole prompt.
  const more: Message[] = [asked, { role: "assistant", content: one.text.trim() }, { role: "user", content: "w5 w6" }];
  const two = await say(more);
  expect(two.cachedTokens).toBeGreaterThan(18);
  answerer.forget();
  const anew = await say(more);
  expect([anew.cachedTokens, anew.text]).toEqual([0, two.text]);
  expect(tokensOf(two.text)).toHaveLength(12);
  answerer.dispose();
  loaded.model.dispose();
  expect(mx.liveHandles()).toBe(before);
});

test("convert keeps what the model sees with", async () => {
  const target = join(folder, "converted");
  const converted = await runCommand(["convert", "--model", seeing, "--mlx-path", target]);
  expect(converted.code).toBe(0);
  expect(JSON.parse(readFileSync(join(target, "config.json"), "utf8"))).toHaveProperty("vision_config.patch_size", 4);
  const { out } = await runCommand(
    ["generate", "--model", target, "--ignore-chat-template", "--verbose", "false", "-m", "12"].concat([
      "--prompt",
      answer.asked,
      "--image",
      first,
      second,
    ]),
  );
  expect(tokensOf(out)).toEqual(answer.tokens);
});

test("chat reads the files ahead of the model", async () => {
  const { code, problems } = await runCommand(["chat", "--model", seeing, "--image", join(folder, "none.png")]);
  expect([code, problems]).toEqual([ExitCode.notFound, expect.stringContaining("there is no image")]);
});

test("what cannot be is told", async () => {
  const refused = async (words: readonly string[], named = seeing) => {
    const { code, problems } = await runCommand(["generate", "--model", named, "--ignore-chat-template", ...words]);
    return { code, problems };
  };
  const asked = ["--prompt", "w1 <|patch|> w2"];
  expect(await refused([...asked, "--image", first, second])).toMatchObject({
    code: ExitCode.usage,
    problems: expect.stringContaining("the prompt has 1 places for images (<|patch|>), but there are 2"),
  });
  expect(await refused([...asked, "--image", join(folder, "none.png")])).toMatchObject({
    code: ExitCode.notFound,
    problems: expect.stringContaining("there is no image"),
  });
  writeFileSync(join(folder, "broken.png"), readFileSync(first).subarray(0, 300));
  expect(await refused([...asked, "--image", join(folder, "broken.png")])).toMatchObject({
    code: ExitCode.failure,
    problems: expect.stringMatching(/the image .*broken\.png is damaged/),
  });
  expect(await refused([...asked, "--image", first, "--draft", "ngram"])).toMatchObject({
    code: ExitCode.usage,
    problems: expect.stringContaining("--image does not go with --draft"),
  });
  const { vision_config: _, ...blind } = runs[0]!.config as { vision_config: object };
  expect(await refused([...asked, "--image", first], model("blind", blind))).toMatchObject({
    code: ExitCode.usage,
    problems: expect.stringContaining("this model takes no images"),
  });
});
