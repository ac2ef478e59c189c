import { afterAll, describe, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { ByteLevelDetokenizer } from "./detokenizer-bpe";
import { NaiveDetokenizer } from "./detokenizer-naive";
import { SentencePieceDetokenizer } from "./detokenizer-spm";
import { detokenizerKind } from "./pick-detokenizer";
import { loadTokenizer, type Tokenizer } from "./tokenizer";

const FIXTURES = join(import.meta.dir, "../../test/fixtures/text");
const scratch = await mkdtemp(join(tmpdir(), "mlxlm-text-"));
afterAll(() => rm(scratch, { recursive: true }));

/** The byte-fallback tokenizer with a decoder that keeps the first space. */
async function untrimmed(): Promise<string> {
  const json = await Bun.file(join(FIXTURES, "byte-fallback/tokenizer.json")).json();
  json.decoder.decoders.pop();
  await Bun.write(join(scratch, "tokenizer.json"), JSON.stringify(json));
  return scratch;
}

interface Described {
  tokenizer: string;
  streams: { ids: number[]; decoded: string; segments: string[] }[];
}
const described: Described[] = await Bun.file(join(FIXTURES, "tokenizers.json")).json();
const folders: Record<string, string> = {
  "byte-level": join(FIXTURES, "byte-level"),
  "byte-fallback": join(FIXTURES, "byte-fallback"),
  "word-piece": join(FIXTURES, "word-piece"),
  "byte-fallback, untrimmed": await untrimmed(),
};

/** The segment after each token, the one that finalize adds, and the whole text. */
function stream(tokenizer: Tokenizer, ids: number[]) {
  const detokenizer = tokenizer.detokenizer();
  const segments = ids.map((id) => {
    detokenizer.addToken(id);
    return detokenizer.lastSegment();
  });
  detokenizer.finalize();
  return { segments: [...segments, detokenizer.lastSegment()], text: detokenizer.text };
}

describe.each(described)("$tokenizer", ({ tokenizer: name, streams }) => {
  test("streams what mlx-lm streams, segment by segment", async () => {
    const tokenizer = await loadTokenizer(folders[name]!);
    for (const { ids, segments, decoded } of streams) {
      expect(stream(tokenizer, ids).segments).toEqual(segments);
      expect(tokenizer.decode(ids)).toBe(decoded);
    }
  });

  test("the stream is the whole text, and no segment ends inside a character", async () => {
    const tokenizer = await loadTokenizer(folders[name]!);
    const samples = fc.string({ unit: "grapheme", maxLength: 40 }).filter((sample) => !sample.includes("\ufffd"));
    const check = fc.asyncProperty(samples, async (sample) => {
      const ids = await tokenizer.encode(sample, { addSpecialTokens: false });
      const { segments, text } = stream(tokenizer, ids);
      const decoded = tokenizer.decode(ids);
      // Byte-level streams drop a first space, which the decoder keeps.
      expect(text).toBe(name === "byte-level" ? decoded.replace(/^ /, "") : decoded);
      // A decoder that cleans spaces up can take back one that has been shown.
      if (name !== "word-piece") expect(segments.join("")).toBe(text);
      for (const segment of segments) expect(segment).not.toContain("\ufffd");
    });
    await fc.assert(check, { numRuns: 200 });
  });
});

test("the decoder of tokenizer.json picks the detokenizer, to the letter", () => {
  const metaspace = { type: "Replace", pattern: { String: "▁" }, content: " " };
  const sequence = (...decoders: unknown[]) => ({ type: "Sequence", decoders });
  const [bytes, fuse] = [{ type: "ByteFallback" }, { type: "Fuse" }];
  const strip = (start: number) => ({ type: "Strip", content: " ", start, stop: 0 });
  expect(detokenizerKind({ type: "ByteLevel", add_prefix_space: true })).toBe("bpe");
  expect(detokenizerKind(sequence(metaspace, bytes, fuse, strip(1)))).toBe("spm");
  expect(detokenizerKind(sequence(metaspace, bytes, fuse))).toBe("spm-untrimmed");
  expect(detokenizerKind(sequence(metaspace, bytes, fuse, strip(2)))).toBe("naive");
  expect(detokenizerKind(sequence(metaspace, fuse, bytes))).toBe("naive");
  expect(detokenizerKind({ type: "WordPiece", prefix: "##", cleanup: true })).toBe("naive");
  expect(detokenizerKind(null)).toBe("naive");
});

describe("held back text", () => {
  const vocabulary = (tokens: string[]) => ({ tokenOf: (id: number) => tokens[id] ?? null });

  test("byte-level: bytes wait for their character, a lone space for the next token", () => {
    const detokenizer = new ByteLevelDetokenizer(vocabulary(["ð", "Ł", "ĺ", "Ģ", "Ġ", "a", "Ā", "｜"]));
    const segments = [5, 4, 0, 1, 2, 3, 6, 7, 99, 0].map((id) => {
      detokenizer.addToken(id);
      return detokenizer.lastSegment();
    });
    expect(segments).toEqual(["a", "", "", "", "", " 😀", "\0", "｜", "!", ""]);
    detokenizer.finalize();
    expect(detokenizer.lastSegment()).toBe("\ufffd");
  });

  test("SentencePiece: byte pieces join into characters, the first space goes", () => {
    const pieces = ["▁", "▁a", "<0xE2>", "<0x82>", "<0xAC>", "b"];
    const trimmed = new SentencePieceDetokenizer(vocabulary(pieces), { trimSpace: true });
    const kept = new SentencePieceDetokenizer(vocabulary(pieces), { trimSpace: false });
    for (const id of [1, 2, 3, 4, 0, 5]) for (const detokenizer of [trimmed, kept]) detokenizer.addToken(id);
    expect(trimmed.text).toBe("a€ b");
    expect(kept.text).toBe(" a€ b");
  });

  test("naive: a line is committed at its end, a space before punctuation waits", () => {
    const words = ["one", " ", ",", "\n", "two"];
    const decode = (ids: number[]) =>
      ids
        .map((id) => words[id])
        .join("")
        .replaceAll(" ,", ",");
    const detokenizer = new NaiveDetokenizer({ decode }, { cleansSpaces: true });
    const segments = [0, 1, 2, 3, 4, 1].map((id) => {
      detokenizer.addToken(id);
      return detokenizer.lastSegment();
    });
    expect(segments).toEqual(["one", "", ",", "\n", "two", ""]);
    detokenizer.finalize();
    expect(detokenizer.text).toBe("one,\ntwo ");
  });
});

test("reset starts over", async () => {
  for (const folder of Object.values(folders)) {
    const tokenizer = await loadTokenizer(folder);
    const detokenizer = tokenizer.detokenizer();
    const run = () => {
      for (const id of [270, 300, 280]) detokenizer.addToken(id);
      detokenizer.finalize();
      return detokenizer.lastSegment();
    };
    const first = run();
    detokenizer.reset();
    expect(detokenizer.text).toBe("");
    expect(detokenizer.tokens).toEqual([]);
    expect(run()).toBe(first);
    expect(first).not.toBe("");
  }
});
