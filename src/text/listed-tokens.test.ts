/** Vocabularies that are no tokenizer.json: tiktoken's, of families that are known, and PLaMo's pieces. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { fixture } from "../../test/parity/fixtures";
import { ExitCode, UserError } from "../errors";
import { loadTokenizer } from "./tokenizer";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "mlxlm-listed-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

const write = (name: string, content: string | object) =>
  writeFileSync(join(folder, name), typeof content === "string" ? content : JSON.stringify(content));

async function failure(): Promise<UserError> {
  const error = await loadTokenizer(folder).catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(UserError);
  return error as UserError;
}

interface Tiktoken {
  /** In base64, by rank. */
  tokens: string[];
  cases: Record<string, { special: Record<string, number>; texts: [text: string, ids: number[]][] }>;
}

describe("tiktoken", () => {
  const { tokens, cases } = fixture<Tiktoken>("tiktoken.json");
  const files: Record<string, string> = {
    HYTokenizer: "hy.tiktoken",
    Phi3SmallTokenizer: "cl100k_base.tiktoken",
    QWenTokenizer: "qwen.tiktoken",
    TikTokenTokenizer: "tiktoken.model",
  };
  const lines = tokens.map((token, rank) => `${token} ${rank}\n`).join("");

  /** Kimi's configuration names its special tokens, the others' code does. */
  const configOf = (name: string) => ({
    tokenizer_class: name,
    ...(name === "TikTokenTokenizer"
      ? {
          added_tokens_decoder: Object.fromEntries(
            Object.entries(cases[name]!.special).map(([content, id]) => [id, { content, special: true }]),
          ),
        }
      : {}),
  });

  for (const [name, { special, texts }] of Object.entries(cases)) {
    test(`${name}: ids are Python's, and texts come back`, async () => {
      write(files[name]!, lines);
      write("tokenizer_config.json", configOf(name));
      const tokenizer = await loadTokenizer(folder);
      for (const [token, id] of Object.entries(special)) expect([token, tokenizer.idOf(token)]).toEqual([token, id]);
      for (const [text, ids] of texts) {
        expect([text, await tokenizer.encode(text)]).toEqual([text, ids]);
        expect(tokenizer.decode(ids)).toBe(text);
      }
    });
  }

  test("a class that is not known is refused, with what is there", async () => {
    write("own.tiktoken", lines);
    write("tokenization_own.py", "");
    write("tokenizer_config.json", { tokenizer_class: "OwnTokenizer" });
    const { message, hint, code } = await failure();
    expect(message).toContain("has own.tiktoken but no tokenizer.json");
    expect(message).toContain("of the class OwnTokenizer");
    expect(message).toContain("Python code (tokenization_own.py), and mlxlm runs no code of a model");
    expect(hint).toContain("save_pretrained");
    expect(code).toBe(ExitCode.notFound);
  });

  const damages: [string, (lines: string[]) => string[], string][] = [
    ["a line of another form", (all) => ["?", ...all], "line 1 is no token in base64 and its rank"],
    ["a rank that is left out", (all) => [...all.slice(0, 5), ...all.slice(6)], "line 6 has rank 6, not 5"],
    ["a token twice", (all) => [...all, `${tokens[9]} ${all.length}`], "is there twice"],
    ["a byte without a token", (all) => all.slice(0, 100), "has no token"],
    ["nothing", () => [], "has no token"],
  ];
  for (const [what, change, problem] of damages) {
    test(`damaged: ${what}`, async () => {
      write("qwen.tiktoken", change(lines.trim().split("\n")).join("\n"));
      write("tokenizer_config.json", { tokenizer_class: "QWenTokenizer" });
      const { message } = await failure();
      expect(message).toContain(join(folder, "qwen.tiktoken"));
      expect(message).toContain(problem);
    });
  }
});

describe("PLaMo's pieces", () => {
  type Row = [piece: string, score: number, kind: string];
  const digits = { "<": -7, ">": -7, "0": -6, "1": -6, "4": -6, x: -6 };
  const scores = { a: -3, b: -4, ab: -5, ba: -6, aba: -9.5, " ": -2, " a": -4, か: -5, かな: -6, "\n": -3, ...digits };
  const rows: Row[] = [
    ["<|plamo:unk|>", 0, "UNKNOWN"],
    ["<|plamo:bos|>", 0, "CONTROL"],
    ["<|plamo:eos|>", 0, "CONTROL"],
    ...Array.from({ length: 256 }, (_, byte): Row => {
      return [`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`, 0, "BYTE"];
    }),
    ...Object.entries(scores).map(([piece, score]): Row => [piece, score, "NORMAL"]),
  ];
  const idOf = new Map(rows.map(([piece], id) => [piece, id]));
  const config = { tokenizer_class: "Plamo2Tokenizer", bos_token: "<|plamo:bos|>", eos_token: "<|plamo:eos|>" };

  /** The pieces whose scores sum highest, from the end to the start, and the sum itself. */
  function best(text: string): { ids: number[]; score: number } {
    const characters = [...text];
    const found = [{ ids: [] as number[], score: 0 }];
    for (let at = characters.length - 1; at >= 0; at--) {
      const bytes = [...new TextEncoder().encode(characters[at]!)].map((byte) => 3 + byte);
      const ways = [{ ids: [...bytes, ...found[0]!.ids], score: found[0]!.score - 1000 }];
      for (let length = 1; length <= characters.length - at; length++) {
        const piece = characters.slice(at, at + length).join("");
        if (!Object.hasOwn(scores, piece)) continue;
        const rest = found[length - 1]!;
        ways.push({ ids: [idOf.get(piece)!, ...rest.ids], score: rest.score + scores[piece as keyof typeof scores] });
      }
      found.unshift(ways.reduce((one, other) => (other.score > one.score ? other : one)));
    }
    return found[0]!;
  }

  const lines = (all: readonly unknown[]) => all.map((row) => `${JSON.stringify(row)}\n`).join("");

  test("texts are cut where scores sum highest, and characters without a piece are bytes", async () => {
    write("tokenizer.jsonl", lines(rows));
    write("tokenizer_config.json", config);
    const tokenizer = await loadTokenizer(folder);
    const sum = (ids: number[]) => ids.reduce((all, id) => all + (rows[id]![2] === "BYTE" ? 0 : rows[id]![1]), 0);
    const parts = fc.constantFrom(...Object.keys(scores), "y", "é", "😀", "漢");
    await fc.assert(
      fc.asyncProperty(fc.array(parts, { maxLength: 14 }), async (drawn) => {
        const text = drawn.join("");
        const ids = await tokenizer.encode(text);
        const expected = best(text);
        // Ways that are as good may differ.
        expect([ids.filter((id) => rows[id]![2] === "BYTE"), sum(ids)]).toEqual([
          expected.ids.filter((id) => rows[id]![2] === "BYTE"),
          sum(expected.ids),
        ]);
        expect(tokenizer.decode(ids)).toBe(text);
      }),
    );
    // The name of a byte in a text is none.
    const named = await tokenizer.encode("<|plamo:bos|>かな<0x41>");
    expect(named).toEqual(["<|plamo:bos|>", "かな", ..."<0x41>"].map((piece) => idOf.get(piece)!));
    expect(tokenizer.eosTokenIds).toEqual(new Set([2]));
  });

  const damages: [string, unknown[], string][] = [
    ["a line that is no list", [...rows, "x"], `line ${rows.length + 1} is no list of a piece and its score`],
    ["a piece without a score", [...rows, ["x"]], "is no list of a piece and its score"],
    ["a piece twice", [...rows, rows[300] ?? rows[260]], "a piece is there twice"],
    ["a byte without a piece", rows.toSpliced(70, 1), "there is no piece <0x43> of kind BYTE"],
    [
      "a score below those of bytes",
      [...rows, ["zz", -5000, "NORMAL"]],
      'the piece "zz" has a score below those of bytes',
    ],
    ["nothing", [], "there is no piece <0x00> of kind BYTE"],
  ];
  for (const [what, all, problem] of damages) {
    test(`damaged: ${what}`, async () => {
      write("tokenizer.jsonl", lines(all));
      write("tokenizer_config.json", config);
      const { message } = await failure();
      expect(message).toContain(join(folder, "tokenizer.jsonl"));
      expect(message).toContain(problem);
    });
  }

  test("another class is refused, with what is there", async () => {
    write("tokenizer.jsonl", lines(rows));
    write("tokenizer_config.json", { tokenizer_class: "PlamoTokenizer" });
    expect((await failure()).message).toContain("has tokenizer.jsonl but no tokenizer.json");
  });
});
