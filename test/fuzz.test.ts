/** Headers of foreign files with bytes changed at random: each ends in a UserError or a sound header, within 50 ms. */
import { describe, expect, test } from "bun:test";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { architectureOf } from "../src/convert/gguf/architecture";
import { parseGgufHeader } from "../src/convert/gguf/header";
import { Metadata } from "../src/convert/gguf/metadata";
import { tokenizerFiles } from "../src/convert/gguf/tokenizer";
import { UserError } from "../src/errors";
import { parseHeader } from "../src/mlx/safetensors-header";
import { type Dice, dice } from "./fuzz/dice";
import { joined } from "./fuzz/edges";
import { fuzz as fuzzFiles, kinds } from "./fuzz/run";
import { ggufBytes, tinyLlama } from "./gguf-file";

const rounds = { safetensors: 100_000, gguf: 20_000 };

/** Milliseconds. */
const longest = 50;

/** Bytes that parsers stumble over. */
const edges = [0, 1, 0x7f, 0x80, 0xff, ...new TextEncoder().encode('"\\{}[],:-0129eE')];

/** The bytes with one to four changes: bits turned, bytes replaced, cut out, doubled or moved. */
function mutate(bytes: Uint8Array, roll: Dice): Uint8Array {
  let changed: Uint8Array = bytes.slice();
  for (let left = 1 + roll(4); left > 0 && changed.length > 0; left--) {
    const at = roll(changed.length);
    const length = 1 + roll(Math.min(64, changed.length - at));
    const part = changed.slice(at, at + length);
    switch (roll(7)) {
      case 0:
        changed[at]! ^= 1 << roll(8);
        break;
      case 1:
        changed[at] = edges[roll(edges.length)]!;
        break;
      case 2:
        changed.fill(edges[roll(edges.length)]!, at, at + length);
        break;
      case 3:
        changed = joined(changed.subarray(0, at), changed.subarray(at + length));
        break;
      case 4:
        changed = joined(changed.subarray(0, at), part, part, changed.subarray(at + length));
        break;
      case 5:
        changed.set(part.subarray(0, changed.length - roll(changed.length)), roll(changed.length - part.length + 1));
        break;
      default:
        changed = changed.slice(0, at);
    }
  }
  return changed;
}

interface Outcome {
  refused: number;
  sound: number;
  slowest: number;
}

/** Parses mutations of `bytes`; anything but a UserError fails with the seed that makes it. */
async function fuzz(bytes: Uint8Array, count: number, parse: (bytes: Uint8Array) => unknown): Promise<Outcome> {
  const outcome = { refused: 0, sound: 0, slowest: 0 };
  for (let seed = 1; seed <= count; seed++) {
    const mutated = mutate(bytes, dice(seed));
    const began = performance.now();
    try {
      await parse(mutated);
      outcome.sound++;
    } catch (error) {
      if (!(error instanceof UserError)) throw new Error(`seed ${seed}: ${error}`, { cause: error });
      if (!error.message || !error.hint) throw new Error(`seed ${seed}: an error without a message or a next step`);
      outcome.refused++;
    }
    let took = performance.now() - began;
    // A busy machine may take the processor away: what is slow is slow again.
    for (let again = 0; took > longest && again < 3; again++) took = Math.min(took, await timed(() => parse(mutated)));
    outcome.slowest = Math.max(outcome.slowest, took);
    if (took > longest) throw new Error(`seed ${seed}: ${took} ms`);
  }
  return outcome;
}

async function timed(work: () => unknown): Promise<number> {
  const began = performance.now();
  try {
    await work();
  } catch {
    // Only the time is asked for.
  }
  return performance.now() - began;
}

describe("safetensors", () => {
  const entries: Record<string, object> = { __metadata__: { format: "mlx", "a key": "ünï" } };
  let end = 0;
  for (let i = 0; i < 12; i++) {
    const shape = [3 + i, 8];
    const bytes = shape[0]! * shape[1]! * 2;
    entries[`model.layers.${i}.self_attn.q_proj.weight`] = { dtype: "BF16", shape, data_offsets: [end, end + bytes] };
    end += bytes;
  }
  const header = new TextEncoder().encode(JSON.stringify(entries));
  const parse = (bytes: Uint8Array) =>
    parseHeader(bytes, end, (problem) => {
      throw new UserError(problem, { hint: "none: this is a test" });
    });

  test(`${rounds.safetensors} mutations of a header`, async () => {
    expect(parse(header).tensors.size).toBe(12);
    const { refused, sound } = await fuzz(header, rounds.safetensors, (bytes) => {
      const { tensors } = parse(bytes);
      // What is let through is what MLX may map: inside the file, and of the size that its shape says.
      for (const { start, end: last } of tensors.values()) {
        if (!(start >= 0 && last >= start && last <= end)) throw new Error(`${start} to ${last} of ${end}`);
      }
    });
    expect(refused).toBeGreaterThan(rounds.safetensors / 2);
    expect(sound).toBeGreaterThan(rounds.safetensors / 100);
  }, 600_000);
});

describe("GGUF", () => {
  const file = ggufBytes(tinyLlama);
  // The data behind it stay: a changed header is to be read, not a file cut off.
  const headerLength = file.length - tinyLlama.tensors.reduce((sum, { data }) => sum + data.length, 0);
  const [header, data] = [file.subarray(0, headerLength), file.subarray(headerLength)];

  test(`${rounds.gguf} mutations of a header`, async () => {
    const { refused, sound } = await fuzz(header, rounds.gguf, async (bytes) => {
      const whole = joined(bytes, data);
      const read = parseGgufHeader(whole, whole.length, "fuzzed.gguf");
      for (const { start, bytes: length } of read.tensors.values()) {
        if (!(start >= 0 && length > 0 && start + length <= whole.length)) throw new Error(`${start}, ${length}`);
      }
      await architectureOf(read, new Map(), "fuzzed.gguf");
      tokenizerFiles(new Metadata(read.metadata, "fuzzed.gguf"));
    });
    expect(refused).toBeGreaterThan(rounds.gguf / 4);
    expect(sound).toBeGreaterThan(rounds.gguf / 100);
  }, 600_000);
});

describe("whole files, loaded and run in a process of their own", () => {
  test.each([...kinds])(
    "300 of the kind %s",
    async (kind) => {
      const { sound, refused, faults } = await fuzzFiles(kind, 1, 300);
      expect(faults).toEqual([]);
      expect(sound).toBeGreaterThan(10);
      expect(refused).toBeGreaterThan(100);
    },
    120_000,
  );

  test("a process that ends is a fault of its seed, and the others go on", async () => {
    const script =
      "for (let seed = Number(process.argv.at(-2)); seed <= 5; seed++) { if (seed === 3) process.abort(); console.log(JSON.stringify({ seed, outcome: 'sound', rss: seed === 5 ? 2 ** 31 : 1 })); }";
    const path = join(mkdtempSync(join(tmpdir(), "mlxlm-fuzz-")), "worker.ts");
    writeFileSync(path, script);
    const { sound, faults } = await fuzzFiles("gguf", 1, 5, path);
    expect(sound).toBe(4);
    expect(faults.map(({ seed }) => seed)).toEqual([3, 5]);
    expect(faults[1]!.problem).toBe("2048 MB");
  });
});
