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
});

/** What a text in each script is made of: ranges of code points, and whole sequences. */
const SCRIPTS: (readonly [first: number, last: number] | string)[][] = [
  [
    [0x61, 0x7a],
    [0x41, 0x5a],
    [0xc0, 0x17f],
  ],
  [[0x410, 0x44f], "ё"],
  [
    [0x4e00, 0x9fa5],
    [0x3041, 0x3096],
    [0xac00, 0xd7a3],
  ],
  [[0x621, 0x64a], [0x64b, 0x652], "لا"],
  [[0x904, 0x939], [0x93e, 0x94c], "क्ष", "\u094d"],
  ["👩‍👩‍👧‍👦", "👍🏽", "🇩🇪", "🏳️‍🌈", "❤️", [0x1f600, 0x1f64f], [0x1f900, 0x1f9ff], "\u200d"],
  [[0x300, 0x36f], "e\u0301", "a\u0308\u0323", "o", "n"],
  [[0x30, 0x39], [0x20ac, 0x20bf], [0x1d400, 0x1d4ff], [0xe000, 0xe010], "\u200b", "\ufeff"],
];
const BETWEEN = [" ", " ", " ", "  ", "\n", "\n\n", "\t", ", ", " , ", ". ", "'", "-", "▁"];

const script = (units: (typeof SCRIPTS)[number]) =>
  fc.oneof(
    ...units.map((unit) =>
      typeof unit === "string"
        ? fc.constant(unit)
        : fc.integer({ min: unit[0], max: unit[1] }).map((code) => String.fromCodePoint(code)),
    ),
  );
/** Words of one script each. */
const word = fc.oneof(...SCRIPTS.map((units) => fc.string({ unit: script(units), minLength: 1, maxLength: 6 })));
const words = fc.array(
  fc.tuple(word, fc.constantFrom(...BETWEEN)).map((parts) => parts.join("")),
  { maxLength: 4 },
);
const text = fc.tuple(fc.constantFrom("", "", "", " "), words).map(([space, parts]) => space + parts.join(""));

describe("10,000 texts in many scripts: the stream is the whole text, and no segment ends inside a character", () => {
  const kinds: [name: string, folder: string, naive: boolean][] = [
    ["byte-level", "byte-level", false],
    ["SentencePiece", "byte-fallback", false],
    ["SentencePiece, untrimmed", "byte-fallback, untrimmed", false],
    ["naive, of words", "word-piece", false],
    ["naive, of bytes", "byte-level", true],
  ];
  const texts = fc.sample(text, { seed: 4, numRuns: 10_000 });

  test.each(kinds)("%s", async (_, folder, naive) => {
    const tokenizer = await loadTokenizer(folders[folder]!);
    const detokenizer = naive ? new NaiveDetokenizer(tokenizer, { cleansSpaces: false }) : tokenizer.detokenizer();
    for (const ids of await tokenizer.encodeBatch(texts, { addSpecialTokens: false })) {
      detokenizer.reset();
      const segments = ids.map((id) => {
        detokenizer.addToken(id);
        return detokenizer.lastSegment();
      });
      detokenizer.finalize();
      segments.push(detokenizer.lastSegment());
      const decoded = tokenizer.decode(ids);
      // Byte-level streams drop a first space, which the decoder keeps.
      const whole = detokenizer instanceof ByteLevelDetokenizer ? decoded.replace(/^ /, "") : decoded;
      const isWhole = detokenizer.text === whole;
      // A decoder that cleans spaces up can take back one that has been shown.
      const isShown = folder === "word-piece" || segments.join("") === whole;
      const isCut = segments.some(
        (segment) => segment.includes("\ufffd") || /^[\udc00-\udfff]|[\ud800-\udbff]$/.test(segment),
      );
      if (!isWhole || !isShown || isCut) expect(segments).toEqual([whole]);
    }
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
