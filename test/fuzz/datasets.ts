/**
 * Datasets with something wrong in their structure: JSON Lines, JSON, CSV and Parquet, read and turned into tokens.
 * `bun test/fuzz/datasets.ts [COUNT] [SEED]`
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parquetMetadata } from "hyparquet";
import { openRows } from "../../src/data/row-files";
import { demoFolder } from "../../src/demo/folder";
import { UserError } from "../../src/errors";
import { loadTokenizer } from "../../src/text/tokenizer";
import { loadDatasets } from "../../src/tune/data";
import { type Dice, dice, pick } from "./dice";
import { fuzzMain } from "./supervise";

const tokenizer = await loadTokenizer(demoFolder(), { eosTokenIds: [] });

const bytes = (...parts: (string | Uint8Array | number[])[]) =>
  new Uint8Array(
    Buffer.concat(parts.map((part) => (typeof part === "string" ? Buffer.from(part) : Uint8Array.from(part)))),
  );

const repeated = (roll: Dice, text: string) => text.repeat(pick(roll, [1, 3, 50, 600, roll(20) === 0 ? 100_000 : 5]));

/** Texts as they stand in JSON, sound and not. */
const strings = [
  '""',
  '"a"',
  '"NaN"',
  '"\\ud800"',
  '"\\u0000"',
  '"\u0001"',
  '"\\x"',
  '"ü\u200d😀"',
  '"<|im_end|>"',
  '"',
  "'a'",
  '"user"',
  '"system"',
];
const numbers = [
  "0",
  "-0",
  "1.0",
  "1e5",
  "1e999",
  "-1E-400",
  "01",
  "1.",
  "NaN",
  "-Infinity",
  "Infinity",
  "9007199254740993",
];
const names = [
  "text",
  "messages",
  "prompt",
  "completion",
  "tools",
  "role",
  "content",
  "__proto__",
  "constructor",
  "__float__",
  "",
];

function json(roll: Dice, depth = 0): string {
  const inner = () => json(roll, depth + 1);
  const some = <T>(make: () => T) => Array.from({ length: roll(4) }, make);
  switch (roll(depth > 4 ? 4 : 10)) {
    case 0:
    case 1:
      return pick(roll, strings);
    case 2:
      return pick(roll, numbers);
    case 3:
      return pick(roll, ["null", "true", "false", "", "nul", "undefined", "[", "}", ",", '{"a"']);
    case 4:
      return `[${some(inner).join(roll(12) === 0 ? "" : ",")}]`;
    case 5: {
      const open = repeated(roll, pick(roll, ["[", '{"a":', "[[1.0,"]));
      return roll(4) === 0 ? open : `${open}1${"]}".repeat(roll(3))}${"]".repeat(open.length)}`;
    }
    case 6:
      return `"${repeated(roll, pick(roll, ["a", "ü", " ", "\\n", "😀"]))}"`;
    default:
      return object(roll, inner);
  }
}

function object(roll: Dice, inner: () => string): string {
  const fields = Array.from({ length: roll(4) }, () => `"${pick(roll, names)}":${inner()}`);
  return `{${fields.join(",")}}`;
}

/** A record, sound in half of the cases. */
function record(roll: Dice): string {
  const value = () => (roll(3) === 0 ? json(roll) : '"some words"');
  const message = () => `{"role":${roll(4) === 0 ? json(roll) : '"user"'},"content":${value()}}`;
  switch (roll(5)) {
    case 0:
      return `{"messages":[${message()},${message()}]${roll(3) === 0 ? `,"tools":${json(roll)}` : ""}}`;
    case 1:
      return `{"prompt":${value()},"completion":${value()}}`;
    case 2:
      return json(roll);
    default:
      return `{"text":${value()}${roll(3) === 0 ? `,"x":${json(roll)}` : ""}}`;
  }
}

const lineEnds = ["\n", "\n", "\n", "\r\n", "\r", "\n\n", "", "\u2028"];
const strays = [[0xff], [0xe9], [0xc3], [0xed, 0xa0, 0x80], [0], [0xef, 0xbb, 0xbf], [0xff, 0xfe]];

/** The bytes of a text, sometimes with others among them, or cut off. */
function disturbed(roll: Dice, text: string): Uint8Array {
  const sound = bytes(text);
  const at = roll(sound.length + 1);
  switch (roll(8)) {
    case 0:
      return bytes(sound.subarray(0, at), pick(roll, strays), sound.subarray(at));
    case 1:
      return sound.subarray(0, at);
    case 2:
      return bytes(pick(roll, strays), sound);
    default:
      return sound;
  }
}

function jsonLines(roll: Dice): Uint8Array {
  return disturbed(roll, Array.from({ length: roll(6) }, () => record(roll) + pick(roll, lineEnds)).join(""));
}

function jsonFile(roll: Dice): Uint8Array {
  const rows = Array.from({ length: roll(4) }, () => record(roll));
  return disturbed(roll, roll(3) === 0 ? json(roll) : `[${rows.join(",")}]`);
}

function csv(roll: Dice): Uint8Array {
  const cell = (): string => {
    const plain = pick(roll, ["", "a", "1", "1.5", "NaN", "true", "-1e999", "ü", "some words", "null", " ", "\0"]);
    switch (roll(8)) {
      case 0:
        return `"${repeated(roll, pick(roll, ["a", '""', ",", "\n", "\r\n"]))}"`;
      case 1:
        return pick(roll, ['"', '"a', 'a"', '"a"b', '"""', '""""', '"a""']);
      case 2:
        return repeated(roll, pick(roll, ["a", ",", "\t", "\n"]));
      default:
        return plain;
    }
  };
  const width = 1 + roll(4);
  const row = () =>
    Array.from({ length: roll(6) === 0 ? roll(7) : width }, cell).join(pick(roll, [",", ",", ",", "\t"]));
  const heading = Array.from({ length: width }, () => pick(roll, ["text", "text", "prompt", "completion", ...names]));
  const lines = [heading.join(","), ...Array.from({ length: roll(6) }, row)];
  return disturbed(roll, lines.map((line) => line + pick(roll, lineEnds)).join(""));
}

const parquets = ["none", "snappy", "zstd"].map((name) => {
  const content = new Uint8Array(readFileSync(join(import.meta.dir, `../fixtures/evaluate/table-${name}.parquet`)));
  const footer = content.length - 8 - new DataView(content.buffer).getUint32(content.length - 8, true);
  // Where a page's header begins.
  const pages = parquetMetadata(content.buffer as ArrayBuffer).row_groups.flatMap(({ columns }) =>
    columns.flatMap(({ meta_data: facts }) => [facts?.data_page_offset, facts?.dictionary_page_offset]),
  );
  return { content, footer, pages: pages.filter((at) => at !== undefined).map(Number) };
});

/** Numbers as the footer and the headers write them: in sevens of bits, most of them folded. */
const varints = [0, 1, 2, 0x7f, 2 ** 14, 2 ** 28, 2 ** 31, 2 ** 32 - 1, 2 ** 40, Number.MAX_SAFE_INTEGER].map(
  (value) => {
    const digits: number[] = [];
    for (let rest = value; digits.length === 0 || rest > 0; rest = Math.floor(rest / 128)) {
      digits.push((rest % 128) | (rest >= 128 ? 128 : 0));
    }
    return digits;
  },
);

function parquet(roll: Dice): Uint8Array {
  const { content, footer, pages } = pick(roll, parquets);
  let changed = content.slice();
  for (let left = 1 + roll(3); left > 0; left--) {
    const end = changed.length - 8;
    // A header of a page takes some twenty bytes.
    const at = roll(2) === 0 ? footer + roll(Math.max(1, end - footer)) : pick(roll, pages) + roll(24);
    switch (roll(6)) {
      case 0:
        changed[at]! ^= 1 << roll(8);
        break;
      case 1:
        changed[at] = pick(roll, [0, 1, 0x7f, 0x80, 0xff, 0x15, 0x16, 0x19, 0x1c, 0x2c]);
        break;
      case 2:
      case 3: {
        // Another number in its place. The footer's length follows, so that it is still found.
        const digits = pick(roll, varints);
        const grown = bytes(changed.subarray(0, at), digits, changed.subarray(at + 1));
        if (at >= footer) {
          new DataView(grown.buffer).setUint32(grown.length - 8, end - footer + digits.length - 1, true);
        }
        changed = grown;
        break;
      }
      case 4:
        changed.set(new Uint8Array(1 + roll(8)).fill(roll(256)).subarray(0, changed.length - at), at);
        break;
      default:
        if (roll(8) === 0) return changed.slice(0, roll(changed.length));
        else if (roll(4) === 0) new DataView(changed.buffer).setUint32(changed.length - 8, roll(2 ** 31), true);
    }
  }
  return changed;
}

const kinds: [ending: string, make: (roll: Dice) => Uint8Array][] = [
  ["jsonl", jsonLines],
  ["json", jsonFile],
  ["csv", csv],
  ["tsv", csv],
  ["txt", (roll) => disturbed(roll, repeated(roll, pick(roll, ["a\n", "\r\n", "ü ", "\0"])))],
  ["parquet", parquet],
  ["parquet", parquet],
];

const settings = { train: true, test: false, mask_prompt: false };

async function use(path: string): Promise<void> {
  const rows = await openRows([path]);
  for (let i = 0; i < Math.min(rows.length, 3); i++) {
    await rows.at(i);
    rows.where(i);
  }
  await rows.all();
  await loadDatasets({ ...settings, data: path } as Parameters<typeof loadDatasets>[0], tokenizer);
}

await fuzzMain(import.meta.path, async (seed) => {
  const roll = dice(seed);
  const [ending, make] = pick(roll, kinds);
  const folder = mkdtempSync(join(tmpdir(), "mlxlm-fuzz-"));
  const path = join(folder, `train.${ending}`);
  writeFileSync(path, make(roll));
  try {
    await use(path);
    return "sound";
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    if (!error.message || error.message.length > 3000)
      throw new Error(`an error without a message, or without end: ${error.message.slice(0, 300)}`);
    return "refused";
  } finally {
    rmSync(folder, { recursive: true });
  }
});
