import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { cp, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ExitCode, UserError } from "../errors";
import type { ResponsePart } from "./response";
import { opensThought } from "./thinking";
import { loadTokenizer } from "./tokenizer";
import { TOOL_FORMATS, type ToolFormatName } from "./tools";

const FIXTURES = join(import.meta.dir, "../../test/fixtures/text");
const root = await mkdtemp(join(tmpdir(), "mlxlm-text-"));
afterAll(() => rm(root, { recursive: true }));

/** A fresh folder for each test. */
let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(root, "model-"));
});
const write = (name: string, content: unknown) =>
  Bun.write(join(folder, name), typeof content === "string" ? content : JSON.stringify(content));
const copy = (name: string) => cp(join(FIXTURES, name), folder, { recursive: true });

async function failure(promise: Promise<unknown>): Promise<UserError> {
  const error = await promise.then(
    () => null,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(UserError);
  return error as UserError;
}

interface Described {
  tokenizer: string;
  vocab_size: number;
  eos_token_ids: number[];
  encodings: { text: string; ids: number[]; with_special_tokens: number[]; decoded: string }[];
}
const described: Described[] = await Bun.file(join(FIXTURES, "tokenizers.json")).json();

describe("as transformers has it", () => {
  test.each(described.filter(({ tokenizer }) => !tokenizer.includes(",")))("$tokenizer", async (expected) => {
    const tokenizer = await loadTokenizer(join(FIXTURES, expected.tokenizer));
    expect(tokenizer.vocabSize).toBe(expected.vocab_size);
    expect([...tokenizer.eosTokenIds]).toEqual(expected.eos_token_ids);
    for (const { text, ids, with_special_tokens, decoded } of expected.encodings) {
      expect(await tokenizer.encode(text, { addSpecialTokens: false })).toEqual(ids);
      expect(await tokenizer.encode(text)).toEqual(with_special_tokens);
      expect(tokenizer.decode(with_special_tokens, { skipSpecialTokens: true })).toBe(decoded);
    }
    const batch = await tokenizer.encodeBatch(expected.encodings.map(({ text }) => text));
    expect(batch).toEqual(expected.encodings.map((encoding) => encoding.with_special_tokens));
  });
});

describe("tokens", () => {
  test("ids and texts, both ways", async () => {
    const tokenizer = await loadTokenizer(join(FIXTURES, "byte-level"));
    expect(tokenizer.idOf("<|im_end|>")).toBe(2);
    expect(tokenizer.tokenOf(2)).toBe("<|im_end|>");
    expect(tokenizer.idOf("no such token")).toBeNull();
    expect(tokenizer.tokenOf(1_000_000)).toBeNull();
    expect(tokenizer.decode([1_000_000])).toBe("");
    expect(tokenizer.eosToken).toBe("<|im_end|>");
    expect(tokenizer.bosToken).toBeNull();
  });

  test("stop tokens: given, the tokenizer's own, and added by id or text", async () => {
    const tokenizer = await loadTokenizer(join(FIXTURES, "byte-level"), { eosTokenIds: [0, 77] });
    expect([...tokenizer.eosTokenIds]).toEqual([0, 77, 2]);
    tokenizer.addEosToken("<|im_start|>");
    tokenizer.addEosToken("5");
    tokenizer.addEosToken(6);
    expect([...tokenizer.eosTokenIds]).toEqual([0, 77, 2, 1, 5, 6]);
    expect(() => tokenizer.addEosToken("no such token")).toThrow('"no such token" is not a token');
  });

  test("tokens that only tokenizer_config.json declares are added in the order of their ids", async () => {
    await copy("byte-level");
    await write("tokenizer_config.json", {
      eos_token: { content: "<|end|>", __type: "AddedToken" },
      image_token: "<image>",
      added_tokens_decoder: {
        "601": { content: "<b>", special: false },
        "600": { content: "<a>", special: true },
        "2": { content: "<|im_end|>", special: true },
      },
      extra_special_tokens: ["<extra>"],
    });
    const tokenizer = await loadTokenizer(folder);
    const tokens = ["<a>", "<b>", "<|end|>", "<image>", "<extra>"];
    expect(tokens.map((token) => tokenizer.idOf(token)).sort()).toEqual([600, 601, 602, 603, 604]);
    expect(tokenizer.idOf("<a>")).toBe(600);
    expect([...tokenizer.eosTokenIds]).toEqual([tokenizer.idOf("<|end|>")!]);
    const ids = await tokenizer.encode("<a>x<b>y<extra>");
    expect(tokenizer.decode(ids)).toBe("<a>x<b>y<extra>");
    expect(tokenizer.decode(ids, { skipSpecialTokens: true })).toBe("x<b>y");
  });

  test("special_tokens_map.json stands in where the config declares no added tokens", async () => {
    await copy("byte-level");
    await write("tokenizer_config.json", {});
    await write("special_tokens_map.json", { bos_token: { content: "<|im_start|>" }, eos_token: "<|endoftext|>" });
    const tokenizer = await loadTokenizer(folder);
    expect(tokenizer.bosToken).toBe("<|im_start|>");
    expect([...tokenizer.eosTokenIds]).toEqual([0]);
  });

  test("a NewlineTokenizer writes newlines as <n>", async () => {
    await copy("byte-level");
    await write("tokenizer_config.json", { tokenizer_class: "NewlineTokenizer" });
    const newlines = await loadTokenizer(folder);
    const plain = await loadTokenizer(join(FIXTURES, "byte-level"));
    const ids = await newlines.encode("a\nb");
    expect(plain.decode(ids)).toBe("a<n>b");
    expect(newlines.decode(ids)).toBe("a\nb");
  });

  test("truncation and padding of tokenizer.json do not apply", async () => {
    await copy("byte-level");
    const json = JSON.parse(await readFile(join(folder, "tokenizer.json"), "utf8"));
    json.truncation = { direction: "Right", max_length: 2, strategy: "LongestFirst", stride: 0 };
    json.padding = {
      strategy: { Fixed: 64 },
      direction: "Right",
      pad_to_multiple_of: null,
      pad_id: 0,
      pad_type_id: 0,
      pad_token: "x",
    };
    await write("tokenizer.json", json);
    const tokenizer = await loadTokenizer(folder);
    const plain = await loadTokenizer(join(FIXTURES, "byte-level"));
    expect(await tokenizer.encode("Hello there")).toEqual(await plain.encode("Hello there"));
  });
});

describe("what tokenizer.json and tokenizer_config.json say of one thing", () => {
  test("a vocabulary of bytes under SentencePiece's decoder prints text, streamed and whole", async () => {
    await copy("byte-level");
    const json = JSON.parse(await readFile(join(folder, "tokenizer.json"), "utf8"));
    const replace = { type: "Replace", pattern: { String: "▁" }, content: " " };
    json.decoder = { type: "Sequence", decoders: [replace, { type: "ByteFallback" }, { type: "Fuse" }] };
    await write("tokenizer.json", json);
    const tokenizer = await loadTokenizer(folder);
    const ids = await tokenizer.encode("hi П t");
    expect(tokenizer.decode(ids)).toBe("hi П t");
    const stream = tokenizer.detokenizer();
    for (const id of ids) stream.addToken(id);
    stream.finalize();
    expect(stream.text).toBe("hi П t");
  });

  test.each([
    {},
    { legacy: false },
    { legacy: true, add_prefix_space: false },
    { legacy: false, add_prefix_space: true },
  ])("a LlamaTokenizer cuts as tokenizer.json says: %j", async (settings) => {
    await copy("byte-fallback");
    const plain = await loadTokenizer(join(FIXTURES, "byte-fallback"));
    await write("tokenizer_config.json", { ...plain.config, tokenizer_class: "LlamaTokenizer", ...settings });
    const tokenizer = await loadTokenizer(folder);
    const ids = await tokenizer.encode("<s>[INST] hi [/INST]", { addSpecialTokens: false });
    expect(ids).toEqual(await plain.encode("<s>[INST] hi [/INST]", { addSpecialTokens: false }));
    // The prefix stands behind a special token too.
    expect(tokenizer.tokenOf(ids[0]!)).toBe("<s>");
    expect(tokenizer.tokenOf(ids[1]!)).toStartWith("▁");
  });
});

describe("thinking", () => {
  test("a pair of single tokens", async () => {
    const { thinking } = await loadTokenizer(join(FIXTURES, "byte-level"));
    expect(thinking).toEqual({ start: "<think>", end: "</think>", startTokens: [3], endTokens: [4] });
    expect((await loadTokenizer(join(FIXTURES, "byte-fallback"))).thinking).toBeNull();
  });

  test("markers of several tokens", async () => {
    await copy("byte-fallback");
    await write("tokenizer_config.json", { extra_special_tokens: ["<|channel>", "<channel|>"] });
    const tokenizer = await loadTokenizer(folder);
    const { thinking } = tokenizer;
    expect(thinking?.start).toBe("<|channel>thought");
    expect(thinking?.startTokens).toEqual(await tokenizer.encode("<|channel>thought", { addSpecialTokens: false }));
    expect(thinking?.endTokens).toEqual([tokenizer.idOf("<channel|>")!]);
  });

  test("harmony's channels: the analysis is a thought, the headers are no part of the answer", async () => {
    await copy("byte-fallback");
    const tokens = ["<|start|>", "<|channel|>", "<|message|>", "<|end|>"];
    await write("tokenizer_config.json", { extra_special_tokens: tokens });
    const tokenizer = await loadTokenizer(folder);
    const prompt = await tokenizer.encode("<|start|>assistant", { addSpecialTokens: false });
    const read = (answer: string, opened = prompt) => {
      const reader = tokenizer.response(opened);
      return [...answer].flatMap((letter) => reader.push(letter)).concat(reader.end());
    };
    const of = (type: string, parts: ResponsePart[]) =>
      parts.map((part) => ("text" in part && part.type === type ? part.text : "")).join("");
    const next = "<|end|><|start|>assistant<|channel|>";
    const answer = `<|channel|>analysis<|message|>a < b${next}analysis<|message|>so${next}final<|message|>yes: <|x`;
    expect([of("reasoning", read(answer)), of("text", read(answer))]).toEqual(["a < bso", "yes: <|x"]);
    expect(read("<|channel|>final<|message|>no").every(({ type }) => type === "text")).toBe(true);
    expect(of("text", read("<|channel|>final<|message|>no"))).toBe("no");
    const opened = await tokenizer.encode("<|start|>assistant<|channel|>analysis<|message|>", {
      addSpecialTokens: false,
    });
    expect(of("reasoning", read(`hm${next}final<|message|>ok`, opened))).toBe("hm");
  });
});

interface Told {
  config: Record<string, unknown>;
  format: string | null;
  start: string | null;
  end: string | null;
  thinking: [start: string, end: string] | null;
  structural: string[];
}
const { told }: { told: Told[] } = await Bun.file(join(FIXTURES, "../tools.json")).json();

describe("tool calls and answers", () => {
  test.each(told.map((expected) => [expected.config, expected] as const))(
    "told as mlx-lm tells them: %j",
    async (config, { format, start, end, thinking, structural }) => {
      await copy("byte-fallback");
      await write("tokenizer_config.json", config);
      const tokenizer = await loadTokenizer(folder);
      expect(tokenizer.toolFormat).toBe(format === null ? null : TOOL_FORMATS[format as ToolFormatName]);
      expect(tokenizer.toolFormat?.start ?? null).toBe(start);
      expect(tokenizer.toolFormat?.end ?? null).toBe(end);
      expect(tokenizer.thinking && [tokenizer.thinking.start, tokenizer.thinking.end]).toEqual(thinking);
      const parts = structural.flatMap((marker) => tokenizer.response([]).push(marker));
      expect(parts).toEqual([]);
    },
  );

  test("a format that is not known is an error once it is asked for", async () => {
    await copy("byte-level");
    await write("tokenizer_config.json", { tool_parser_type: "glm48" });
    const tokenizer = await loadTokenizer(folder);
    expect(() => tokenizer.toolFormat).toThrow('tool_parser_type is "glm48"');
    expect(await tokenizer.encode("a")).toHaveLength(1);
  });

  test("an answer begins in a thought that the prompt has opened", async () => {
    const tokenizer = await loadTokenizer(join(FIXTURES, "byte-level"));
    const first = async (prompt: string) => tokenizer.response(await tokenizer.encode(prompt)).push("x")[0]!.type;
    expect(await first("<|im_start|>assistant\n<think>\n")).toBe("reasoning");
    expect(await first("<think>a</think>")).toBe("text");
    expect(await first("<think>a</think> <think>")).toBe("reasoning");
    expect(await first("Hi")).toBe("text");
  });

  test("a sequence that opens a thought is found as a whole", () => {
    const thinking = { start: "", end: "", startTokens: [1, 2], endTokens: [3] };
    expect(opensThought([1, 2], thinking)).toBe(true);
    expect(opensThought([1, 2, 3, 1], thinking)).toBe(false);
    expect(opensThought([1, 2, 3, 1, 2, 1], thinking)).toBe(true);
    expect(opensThought([], thinking)).toBe(false);
  });

  test("chats that code lays out: by the config, or by the architecture where there is no template", async () => {
    await copy("byte-level");
    const messages = [{ role: "user", content: "Hi" }];
    const coded = "<｜begin▁of▁sentence｜><｜User｜>Hi<｜Assistant｜><think>";
    const rendered = async (defaults?: { chat_template_type: string }) =>
      (await loadTokenizer(folder, { defaults })).applyChatTemplate(messages, { addGenerationPrompt: true });
    await write("tokenizer_config.json", { chat_template_type: "deepseek_v32", chat_template: "jinja" });
    expect(await rendered()).toBe(coded);
    await write("tokenizer_config.json", { chat_template: "jinja" });
    expect(await rendered({ chat_template_type: "deepseek_v32" })).toBe("jinja");
    await write("tokenizer_config.json", {});
    expect(await rendered({ chat_template_type: "deepseek_v32" })).toBe(coded);
    await expect(rendered({ chat_template_type: "deepseek_v4" })).rejects.toThrow(
      'chat_template_type is "deepseek_v4"',
    );
    const tokenizer = await loadTokenizer(folder, { defaults: { chat_template_type: "deepseek_v32" } });
    expect(tokenizer.hasChatTemplate).toBe(true);
    expect(() => tokenizer.applyChatTemplate([{ role: "poet" }])).toThrow(
      'no place for these messages: there is no role "poet"',
    );
  });

  test("Muse Spark's answers have headers", async () => {
    await copy("byte-level");
    await write("tokenizer_config.json", {});
    const defaults = { chat_template_type: "muse_spark", tool_parser_type: "muse_spark" };
    const reader = (await loadTokenizer(folder, { defaults })).response([]);
    const parts = reader.push("to=self<|message|>so<|eom|>assistant to=user<|message|>Hi<|eot|>");
    expect(parts).toEqual([
      { type: "reasoning", text: "so" },
      { type: "text", text: "Hi" },
    ]);
  });
});

describe("chat templates", () => {
  const messages = [{ role: "user", content: "Hi" }];

  test("special tokens, enable_thinking and kwargs reach the template; ids carry no further special tokens", async () => {
    const chatTemplate = "{{ bos_token }}{{ eos_token }}{{ enable_thinking }}{{ messages[0].content }}";
    const spm = await loadTokenizer(join(FIXTURES, "byte-fallback"), { chatTemplate });
    expect(spm.applyChatTemplate(messages)).toBe("<s></s>FalseHi");
    expect(spm.applyChatTemplate(messages, { kwargs: { bos_token: "B", enable_thinking: 1 } })).toBe("B</s>1Hi");
    expect((await spm.encodeChat(messages)).slice(0, 3)).not.toEqual([1, 1, 2]);
    expect((await spm.encodeChat(messages)).slice(0, 2)).toEqual([1, 2]);
    const thinks = await loadTokenizer(join(FIXTURES, "byte-level"), { chatTemplate });
    expect(thinks.applyChatTemplate(messages)).toBe("<|im_end|>TrueHi");
  });

  test("where a template may stand, the later winning", async () => {
    await copy("byte-level");
    const rendered = async () => (await loadTokenizer(folder)).applyChatTemplate(messages);
    await write("chat_template.json", { chat_template: "of the processor" });
    expect(await rendered()).toBe("of the processor");
    await write("tokenizer_config.json", { chat_template: "of the config" });
    expect(await rendered()).toBe("of the config");
    await write("chat_template.jinja", "of its own\n");
    expect(await rendered()).toBe("of its own");
    await write("additional_chat_templates/tool_use.jinja", "with tools");
    expect(await rendered()).toBe("of its own");
    expect((await loadTokenizer(folder)).applyChatTemplate(messages, { tools: [{}] })).toBe("with tools");
  });

  test("named templates: tools ask for tool_use, all else for default", async () => {
    await copy("byte-level");
    const named = (...names: string[]) => ({ chat_template: names.map((name) => ({ name, template: name })) });
    await write("tokenizer_config.json", named("default", "tool_use"));
    const tokenizer = await loadTokenizer(folder);
    expect(tokenizer.applyChatTemplate(messages)).toBe("default");
    expect(tokenizer.applyChatTemplate(messages, { tools: [] })).toBe("tool_use");
    await write("tokenizer_config.json", named("rag"));
    const other = await loadTokenizer(folder);
    expect(other.hasChatTemplate).toBe(true);
    expect(() => other.applyChatTemplate(messages)).toThrow(`${folder} has no default chat template, only rag.`);
  });

  test("none", async () => {
    const tokenizer = await loadTokenizer(join(FIXTURES, "byte-level"));
    expect(tokenizer.hasChatTemplate).toBe(false);
    expect(() => tokenizer.applyChatTemplate(messages)).toThrow("has no chat template");
  });
});

const good = await readFile(join(FIXTURES, "byte-level/tokenizer.json"), "utf8");

describe("broken checkpoints", () => {
  const changed = (change: (json: Record<string, Record<string, unknown>>) => void) => {
    const json = JSON.parse(good);
    change(json);
    return JSON.stringify(json);
  };

  test.each([
    ["no bytes", "", "the file is empty"],
    ["cut off", good.slice(0, 3000), "EOF while parsing"],
    ["cut off early", good.slice(0, 300), "it is not JSON"],
    ["a list", "[]", "it is not an object"],
    ["null", "null", "it is not an object"],
    ["no model", "{}", '"model"'],
    ["an unknown model", changed((json) => (json.model = { type: "Fictional" })), "ModelUntagged"],
    ["text for ids", changed((json) => (json.model!.vocab = { a: "x" })), "expected u32"],
    ["negative ids", changed((json) => (json.model!.vocab = { a: -1 })), "expected u32"],
    ["merges of unknown tokens", changed((json) => (json.model!.merges = [["no", "where"]])), "out of vocabulary"],
    [
      "a bad pattern",
      changed(
        (json) =>
          (json.pre_tokenizer = { type: "Split", pattern: { Regex: "((" }, behavior: "Removed", invert: false }),
      ),
      "Oniguruma",
    ],
    ["a number for added tokens", changed((json) => Object.assign(json, { added_tokens: 3 })), '"added_tokens"'],
    ["an unknown decoder", changed((json) => (json.decoder = { type: "Fictional" })), "DecoderUntagged"],
    [
      "a post-processor with an unknown token",
      changed(
        (json) =>
          (json.post_processor = {
            type: "TemplateProcessing",
            single: [{ SpecialToken: { id: "<s>", type_id: 0 } }],
            pair: [],
            special_tokens: {},
          }),
      ),
      "unknown token <s>",
    ],
  ])("tokenizer.json: %s", async (_, content, problem) => {
    await write("tokenizer.json", content);
    const { message } = await failure(loadTokenizer(folder));
    expect(message).toStartWith(`${join(folder, "tokenizer.json")} can't be read: `);
    expect(message).toContain(problem);
  });

  test("tokenizer_config.json with a wrong type names the field", async () => {
    await copy("byte-level");
    await write("tokenizer_config.json", { eos_token: 3 });
    const { message } = await failure(loadTokenizer(folder));
    expect(message).toStartWith(`${join(folder, "tokenizer_config.json")} can't be read: "eos_token": `);
  });

  test("another format than tokenizer.json is named", async () => {
    await write("tokenizer.model", "sentencepiece");
    const error = await failure(loadTokenizer(folder));
    expect(error.message).toContain("has tokenizer.model but no tokenizer.json");
    expect(error.code).toBe(ExitCode.notFound);
    expect((await failure(loadTokenizer(join(folder, "nowhere")))).message).toEndWith("nowhere has no tokenizer.json.");
  });
});

describe("GPT-2's vocab.json and merges.txt", () => {
  const writeFiles = async () => {
    const { model } = await Bun.file(join(FIXTURES, "byte-level/tokenizer.json")).json();
    await write("vocab.json", model.vocab);
    const merges = model.merges.map((pair: [string, string]) => pair.join(" "));
    await write("merges.txt", `#version: 0.2\n${merges.join("\n")}\n`);
  };

  test("give the same tokenizer", async () => {
    await writeFiles();
    const tokenizer = await loadTokenizer(folder);
    const same = await loadTokenizer(join(FIXTURES, "byte-level"));
    const text = "Hello, wörld! 敏捷 😀\n  x";
    expect(await tokenizer.encode(text)).toEqual(await same.encode(text));
    expect(tokenizer.decode(await tokenizer.encode(text))).toBe(text);
  });

  test("are refused for a tokenizer that splits words otherwise", async () => {
    await writeFiles();
    await write("tokenizer_config.json", { tokenizer_class: "Qwen2Tokenizer" });
    expect((await failure(loadTokenizer(folder))).message).toContain("has vocab.json but no tokenizer.json");
  });

  test("damaged ones are named", async () => {
    await writeFiles();
    await write("vocab.json", { a: "one" });
    expect((await failure(loadTokenizer(folder))).message).toContain(
      `${join(folder, "vocab.json")} can't be read: "a"`,
    );
  });
});
