/** Calibration data: the rows that Python draws, what is held out, and what is no data. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fixture } from "../../test/parity/fixtures";
import { demoFolder } from "../demo/folder";
import * as mx from "../mlx";
import { loadTokenizer, type Tokenizer } from "../text/tokenizer";
import { loadCalibration } from "./calibration";
import { downloadText } from "./reference-text";

const scratch = mkdtempSync(join(tmpdir(), "mlxlm-calibration-"));
const at = (name: string) => join(scratch, name);
let tokenizer: Tokenizer;

beforeAll(async () => {
  tokenizer = await loadTokenizer(demoFolder());
});
afterAll(() => rmSync(scratch, { recursive: true }));

interface Drawn {
  text: string;
  length: number;
  samples: number;
  rows: number[][];
}

/** One token a letter, as the oracle's. */
const letters = { encode: async (text: string) => [...Buffer.from(text)] } as unknown as Tokenizer;

const load = (
  dataPath: string,
  numSamples: number,
  sequenceLength: number,
  { vocabSize = 5000, by = tokenizer } = {},
) => loadCalibration(by, { numSamples, sequenceLength, vocabSize, dataPath });

test.each(fixture<Drawn[]>("quant-data.json").map((one) => [one.samples, one.length, one] as const))(
  "%d samples of %d tokens are Python's; the others are held out",
  async (samples, length, { text, rows }) => {
    const path = at("letters.txt");
    writeFileSync(path, text);
    mx.random.seed(123);
    const calibration = await load(path, samples, length, { by: letters });
    expect(calibration.rows).toEqual(rows);
    const others = Math.floor(text.length / length) - rows.length;
    expect(calibration.heldOut.length).toBe(Math.min(32, others));
    const joined = [...calibration.rows, ...calibration.heldOut].map((row) => row.join());
    expect(new Set(joined).size).toBe(joined.length);
  },
);

describe("datasets", () => {
  const lines = (count: number, word: string) =>
    Array.from({ length: count }, (_, i) => JSON.stringify({ text: `${word} ${i} and more ${i * i}` })).join("\n");

  test("give rows of their texts, and hold some out", async () => {
    writeFileSync(at("texts.jsonl"), lines(40, "one"));
    mx.random.seed(1);
    const { rows, heldOut } = await load(at("texts.jsonl"), 4, 16);
    expect([rows.length, heldOut.length > 0]).toEqual([4, true]);
    expect([...rows, ...heldOut].every((row) => row.length === 16)).toBe(true);
    mx.random.seed(1);
    expect((await load(at("texts.jsonl"), 4, 16)).rows).toEqual(rows);
    mx.random.seed(2);
    expect((await load(at("texts.jsonl"), 4, 16)).rows).not.toEqual(rows);
  });

  test("hold out the same text whatever was drawn before, and none of it is drawn", async () => {
    writeFileSync(at("same.jsonl"), lines(60, "one"));
    const drawn = async (seed: number, samples: number) => {
      mx.random.seed(seed);
      return load(at("same.jsonl"), samples, 16);
    };
    const [few, other, all] = [await drawn(1, 4), await drawn(2, 8), await drawn(3, -1)];
    expect(few.heldOut.length).toBeGreaterThan(0);
    expect(other.heldOut).toEqual(few.heldOut);
    expect(all.heldOut).toEqual(few.heldOut);
    expect(tokenizer.decode(few.heldOut.flat())).toContain("one 57 and more");
    expect(tokenizer.decode(all.rows.flat())).not.toContain("one 57 and more");
  });

  test("give their start to measure on where nothing is held out", async () => {
    writeFileSync(at("one.txt"), "abcdefgh".repeat(40));
    const { heldOut, first } = await load(at("one.txt"), -1, 16, { by: letters });
    expect([heldOut, first[0]]).toEqual([[], [...Buffer.from("abcdefgh".repeat(2))]]);
  });

  test("with a validation split hold that out", async () => {
    const folder = at("");
    writeFileSync(join(folder, "train.jsonl"), lines(30, "one"));
    writeFileSync(join(folder, "valid.jsonl"), lines(30, "two"));
    const { rows, heldOut } = await load(folder, -1, 16);
    expect(tokenizer.decode(rows.flat())).not.toContain("two");
    expect(tokenizer.decode(heldOut.flat())).toContain("two");
  });
});

test("drawing leaves no tensor behind", async () => {
  writeFileSync(at("letters.txt"), "abcdefgh".repeat(40));
  await load(at("letters.txt"), 3, 8);
  const before = mx.liveHandles();
  for (let n = 0; n < 5; n++) await load(at("letters.txt"), 3, 8);
  expect(mx.liveHandles()).toBe(before);
});

describe("errors", () => {
  test.each<[string, string | null, RegExp]>([
    ["missing.txt", null, /there is no file .*missing\.txt/],
    ["missing.jsonl", null, /missing\.jsonl/],
    ["empty.txt", "", /fewer tokens than one row of 64/],
    ["short.jsonl", '{"text": "a"}', /fewer tokens than one row of 64/],
    ["columns.jsonl", '{"question": "a"}', /the columns question, and none that mlxlm knows/],
    ["broken.jsonl", '{"text": ', /broken\.jsonl, line 1/],
  ])("%s", async (name, text, message) => {
    if (text !== null) writeFileSync(at(name), text);
    await expect(load(at(name), -1, 64)).rejects.toThrow(message);
  });

  test("a token that the model does not have", async () => {
    writeFileSync(at("letters.txt"), "z".repeat(100));
    await expect(load(at("letters.txt"), -1, 8, { vocabSize: 100, by: letters })).rejects.toThrow("token id 122");
  });
});

describe("downloading the text", () => {
  const answers: Record<string, () => Response> = {
    "/text": () => new Response("some text", { headers: { "content-type": "text/plain; charset=utf-8" } }),
    "/page": () => new Response("<html>log in", { headers: { "content-type": "text/html" } }),
    "/nothing": () => new Response("", { headers: { "content-type": "text/plain" } }),
  };
  const server = Bun.serve({
    port: 0,
    fetch: (request) => answers[new URL(request.url).pathname]?.() ?? new Response("", { status: 404 }),
  });
  afterAll(() => server.stop(true));

  test("writes it whole", async () => {
    await downloadText(`${server.url}text`, at("deep/down/text.txt"));
    expect(await Bun.file(at("deep/down/text.txt")).text()).toBe("some text");
  });

  test.each([
    ["page", "sends no text"],
    ["nothing", "sends no"],
    ["missing", "answers 404"],
  ])("%s: nothing is written", async (path, message) => {
    const target = at(`${path}.out`);
    await expect(downloadText(`${server.url}${path}`, target)).rejects.toThrow(message);
    expect(await Bun.file(target).exists()).toBe(false);
  });
});
