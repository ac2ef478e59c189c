/**
 * Prompt-cache files with something wrong in their structure, each opened as `generate` does and continued: the end is an
 * answer or a UserError in our own words. `bun test/fuzz/prompt-caches.ts [COUNT] [SEED]` runs them in processes of their
 * own, which tells crashes, hangs and memory too.
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { UserError } from "../../src/errors";
import { loadPromptCache, savePromptCache } from "../../src/generate/prompt-cache-file";
import { checkCacheOf } from "../../src/generate/prompt-cache-fit";
import { generateSteps } from "../../src/generate/step";
import * as mx from "../../src/mlx";
import { type Cache, createModel, type LanguageModel } from "../../src/models";
import { CacheList, ChunkedKVCache, ConcatenateKVCache, type KeyValueCache, KVCache } from "../../src/nn";
import { type Dice, dice, pick } from "./dice";
import { peakMemory } from "./supervise";

const llama = {
  model_type: "llama",
  hidden_size: 64,
  num_hidden_layers: 2,
  intermediate_size: 64,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 32,
  vocab_size: 32,
  rms_norm_eps: 1e-5,
};

const configs = {
  llama,
  windows: { ...llama, sliding_window: 4, layer_types: ["sliding_attention", "full_attention"] },
  mamba2: {
    model_type: "mamba2",
    num_heads: 2,
    head_dim: 8,
    vocab_size: 32,
    hidden_size: 8,
    state_size: 4,
    num_hidden_layers: 2,
    layer_norm_epsilon: 1e-5,
    conv_kernel: 4,
    n_groups: 1,
    use_bias: false,
    use_conv_bias: true,
    tie_word_embeddings: true,
    time_step_limit: [0, 10],
  },
};

interface Entry {
  dtype: string;
  shape: number[];
  data: Uint8Array;
}

/** A safetensors file, taken apart. */
interface Parts {
  entries: [name: string, entry: Entry][];
  facts: [name: string, value: unknown][];
}

/** What a file is made from: the model that it belongs to, and a sound file of one. */
interface Origin {
  model: LanguageModel;
  parts: Parts;
}

const width: Record<string, number> = { BOOL: 1, U8: 1, I8: 1, F8_E4M3: 1, F16: 2, BF16: 2, I16: 2, F32: 4, I32: 4 };
Object.assign(width, { U32: 4, F64: 8, I64: 8, U64: 8, C64: 8 });

const edges = [-1, 0, 1, 2, 3, 4, 5, 255, 256, 1e6, 2 ** 30, 2 ** 31 - 1, 0.5, Number.NaN, Number.POSITIVE_INFINITY];
const kinds = ["KVCache", "RotatingKVCache", "QuantizedKVCache", "ConcatenateKVCache", "ChunkedKVCache", "ArraysCache"];
const kindNames = [...kinds, "CacheList", "BatchKVCache", "constructor", "", "\u001b]0;x\u0007", "K".repeat(5000)];
const names = ["", ".", "0", "0.", "0.0.0", "9999.0", "99999.0", "-1.0", "0.0.1", "1.2", "0.\u0000", "0.__proto__"];
const strangeNames = [...names, "0".repeat(100_000), "0.".repeat(40_000), "0.0".repeat(20), "é.0", "\u001b[2J"];

function takenApart(bytes: Uint8Array): Parts {
  const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
  const { __metadata__, ...rest } = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  const described = rest as Record<string, { dtype: string; shape: number[]; data_offsets: [number, number] }>;
  const data = bytes.subarray(8 + length);
  return {
    facts: Object.entries(__metadata__),
    entries: Object.entries(described).map(([name, { dtype, shape, data_offsets }]) => [
      name,
      { dtype, shape, data: data.slice(...data_offsets) },
    ]),
  };
}

function joined({ entries, facts }: Parts, roll: Dice): Uint8Array {
  let at = 0;
  // Written by hand: a name may occur twice.
  const fields = entries.map(([name, { dtype, shape, data }]) => {
    const entry = { dtype, shape, data_offsets: [at, at + data.length] };
    at += data.length;
    return `${JSON.stringify(name)}:${JSON.stringify(entry)}`;
  });
  const metadata = facts.map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`).join(",");
  const parts = roll(60) === 0 ? fields : [`"__metadata__":{${metadata}}`, ...fields];
  const header = new TextEncoder().encode(`{${parts.join(",")}}`);
  const prefix = new Uint8Array(8);
  new DataView(prefix.buffer).setBigUint64(0, BigInt(header.length), true);
  return Buffer.concat([prefix, header, ...entries.map(([, { data }]) => data)]);
}

/** One change to the structure, in place. */
function change(parts: Parts, roll: Dice): void {
  const { entries, facts } = parts;
  if (entries.length === 0 || facts.length === 0) return;
  const at = roll(entries.length);
  const [name, entry] = entries[at]!;
  const fact = roll(facts.length);
  switch (roll(13)) {
    case 0:
      entries.splice(at, 1);
      break;
    case 1:
      entries[at] = [pick(roll, strangeNames), entry];
      break;
    case 2:
      entries.push([pick(roll, [name, ...strangeNames]), entry]);
      break;
    case 3:
      entries[at] = [entries[roll(entries.length)]![0], entry];
      break;
    case 4: {
      const dtype = pick(roll, Object.keys(width));
      entries[at] = [name, sized({ ...entry, dtype })];
      break;
    }
    case 5: {
      const shape = [...entry.shape];
      if (shape.length > 0) shape[roll(shape.length)] = pick(roll, [0, 1, 2, 3, 5, 31, 64, 300]);
      entries[at] = [name, sized({ ...entry, shape })];
      break;
    }
    case 6: {
      const shape = pick(roll, [[], [1], [...entry.shape, 1], entry.shape.slice(1), [1, ...entry.shape]]);
      entries[at] = [name, sized({ ...entry, shape })];
      break;
    }
    case 7: {
      // A number becomes one that is on the edge of what it may be.
      const scalars = entries.filter(([, { shape, data }]) => shape.length === 0 && data.length === 4);
      if (scalars.length > 0) setNumber(pick(roll, scalars)[1], pick(roll, edges));
      break;
    }
    case 8:
      facts[fact] = [facts[fact]![0], pick(roll, [...kindNames, "scalar", "string", "none", name])];
      break;
    case 9:
      facts.splice(fact, 1);
      break;
    case 10:
      facts[fact] = [facts[fact]![0], pick(roll, [1, null, {}, []])];
      break;
    case 11:
      facts.push([`2.${1 + roll(20)}.${roll(2)}`, pick(roll, [name, "scalar", "none", "string"])]);
      break;
    default: {
      // All layers alike: what a reader of the first one would not see.
      const kind = pick(roll, kindNames);
      for (const one of facts) if (/^1\.\d+$/.test(one[0])) one[1] = kind;
    }
  }
}

/** The entry with as many bytes as its shape takes, or as before where that is much. */
function sized(entry: Entry): Entry {
  const bytes = entry.shape.reduce((product, dim) => product * dim, width[entry.dtype]!);
  const data = new Uint8Array(bytes > 1_000_000 ? entry.data.length : bytes);
  data.set(entry.data.subarray(0, data.length));
  return { ...entry, data };
}

function setNumber(entry: Entry, value: number): void {
  const view = new DataView(entry.data.buffer, entry.data.byteOffset);
  entry.dtype = Number.isInteger(value) ? "I32" : "F32";
  if (entry.dtype === "I32") view.setInt32(0, value, true);
  else view.setFloat32(0, value, true);
}

/** Bytes changed without regard to what they mean. */
function garbled(bytes: Uint8Array, roll: Dice): Uint8Array {
  const changed = bytes.slice();
  if (roll(3) === 0) return changed.subarray(0, roll(changed.length));
  for (let left = 1 + roll(4); left > 0; left--) changed[roll(changed.length)]! ^= 1 << roll(8);
  return changed;
}

async function origins(folder: string): Promise<Origin[]> {
  const found: Origin[] = [];
  const add = async (model: LanguageModel, cache: Cache[], kvQuantization?: { bits: number; groupSize: number }) => {
    const options = { maxTokens: 2, cache, ...(kvQuantization && { kvQuantization: { ...kvQuantization, start: 0 } }) };
    for await (const _ of generateSteps(model, [1, 2, 3, 4, 5], options));
    await keep(model, cache);
  };
  const keep = async (model: LanguageModel, cache: Cache[]) => {
    const path = join(folder, "origin.safetensors");
    await savePromptCache(path, cache, { model: "tiny", tokenizer_config: "{}" });
    for (const layer of cache) layer.dispose();
    found.push({ model, parts: takenApart(await Bun.file(path).bytes()) });
  };
  const [plain, windows, recurrent] = await Promise.all(
    Object.values(configs).map((config) => createModel(config, "a fuzzed model")),
  );
  for (const model of [plain!, windows!, recurrent!]) await add(model, model.makeCache());
  await add(plain!, plain!.makeCache({ maxSize: 6 }));
  await add(plain!, plain!.makeCache(), { bits: 4, groupSize: 32 });
  await add(plain!, [new ChunkedKVCache(4), new ChunkedKVCache(4)]);
  await add(plain!, [new ConcatenateKVCache(), new ConcatenateKVCache()]);
  const listed = plain!.makeCache() as KeyValueCache[];
  mx.scope(() => {
    for (const layer of listed) layer.update(mx.ones([1, 1, 3, 32]), mx.ones([1, 1, 3, 32]));
  });
  await keep(plain!, [new CacheList([listed[0]!, new KVCache()]), listed[1]!]);
  return found;
}

export interface Outcome {
  continued: number;
  refused: number;
}

/**
 * Opens and continues `count` files.
 * @throws Error with the seed of the file for anything but an answer or a UserError
 */
export async function fuzzPromptCaches(
  count: number,
  seed: number,
  onDone: (at: number) => void = () => {},
): Promise<Outcome> {
  const folder = mkdtempSync(join(tmpdir(), "mlxlm-fuzz-"));
  const outcome = { continued: 0, refused: 0 };
  let made: Origin[] = [];
  try {
    mx.random.seed(1);
    made = await origins(folder);
    for (let at = seed; at < seed + count; at++) {
      const roll = dice(at);
      const { model, parts } = pick(roll, made);
      const changed = structuredClone(parts);
      for (let left = pick(roll, [1, 1, 1, 2, 3]); left > 0; left--) change(changed, roll);
      const whole = joined(changed, roll);
      const path = join(folder, "fuzzed.safetensors");
      writeFileSync(path, roll(8) === 0 ? garbled(whole, roll) : whole);
      try {
        await opened(path, model);
        outcome.continued += 1;
      } catch (error) {
        if (!(error instanceof UserError) || /MLX|\[[a-z_]{3,}\]|\p{Cc}/u.test(error.message)) {
          throw new Error(`the file of seed ${at}: ${error}`, { cause: error });
        }
        outcome.refused += 1;
      }
      onDone(at);
    }
    return outcome;
  } finally {
    for (const model of new Set(made.map(({ model }) => model))) model.dispose();
    rmSync(folder, { recursive: true });
  }
}

async function opened(path: string, model: LanguageModel): Promise<void> {
  const saved = await loadPromptCache(path);
  try {
    checkCacheOf(model, saved, path);
    for await (const _ of generateSteps(model, [1, 2, 3], { maxTokens: 2, cache: saved.cache }));
  } finally {
    for (const layer of saved.cache) layer.dispose();
  }
}

/** Milliseconds that one file may take, and bytes of the whole process. */
const limits = { time: 10_000, memory: 1e9 };

/** Runs the files in a process of its own; it ends with what went wrong, if anything did. */
async function supervised(count: number, seed: number): Promise<void> {
  let [at, last, memory] = [seed, Date.now(), 0];
  const child = Bun.spawn([process.execPath, import.meta.path, "--child", `${count}`, `${seed}`], {
    stderr: "inherit",
    ipc(message) {
      last = Date.now();
      if (typeof message === "number") at = message;
      else memory = (message as { memory: number }).memory;
    },
    stdout: "pipe",
  });
  const watch = setInterval(() => Date.now() - last > limits.time && child.kill(), 500);
  const out = await new Response(child.stdout).text();
  await child.exited;
  clearInterval(watch);
  console.log(`${out.trim()}, peak memory ${(memory / 1e6).toFixed(0)} MB`);
  if (child.signalCode) throw new Error(`the file of seed ${at + 1} ended in ${child.signalCode}`);
  if (child.exitCode !== 0) throw new Error(`the file of seed ${at + 1} ended with ${child.exitCode}`);
  if (memory > limits.memory) throw new Error("more than 1 GB of memory was taken");
}

if (import.meta.main) {
  const words = process.argv.slice(2).filter((word) => word !== "--child");
  const [count = 3000, seed = 1] = words.map(Number);
  if (process.argv.includes("--child")) {
    const { continued, refused } = await fuzzPromptCaches(count, seed, (at) => process.send?.(at));
    console.log(`${count} files: ${refused} refused, ${continued} continued`);
    process.send?.({ memory: peakMemory() });
    process.disconnect?.();
  } else await supervised(count, seed);
}
