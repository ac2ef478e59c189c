/** Hostile GGUF files: sound ones with a few parts changed. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { ggufBytes, type RawGguf, type RawTensor, type RawValue, raw, tinyLlama, u32, u64 } from "../gguf-file";
import { type Dice, dice, pick } from "./dice";
import { edgeNumbers, edgeSizes, mutateBytes } from "./edges";

/** Numbers in a block, and its bytes, of the types that files have, by code. */
const types: Readonly<Record<number, [block: number, bytes: number]>> = {
  0: [1, 4],
  1: [1, 2],
  2: [32, 18],
  3: [32, 20],
  8: [32, 34],
  30: [1, 2],
  12: [256, 144],
  14: [256, 210],
  24: [1, 1],
  99: [1, 1],
};

/** Bytes of small numbers, whatever the type: halves of a scale are 0x2c.., the rest is anything. */
function data(count: number, code: number, roll: Dice): Uint8Array {
  const [block, bytes] = types[code]!;
  const size = Math.min(2 ** 20, Math.ceil(count / block) * bytes);
  if (code === 0) return new Uint8Array(new Float32Array(size / 4).map(() => (roll(200) - 100) / 500).buffer);
  const made = new Uint8Array(size);
  for (let i = 0; i < size; i++) made[i] = code === 1 || code === 30 ? (i % 2 ? 0x2c : roll(256)) : roll(256);
  for (let at = 0; block > 1 && at < size; at += bytes) made.set([0x66, 0x2c, 0x66, 0x2c], at);
  return made;
}

const product = (dims: readonly number[]) => dims.reduce((a, b) => a * b, 1);

function withType(tensor: RawTensor, code: number, roll: Dice): RawTensor {
  return { ...tensor, code, data: data(product(tensor.dims), code, roll) };
}

const renamed = (file: RawGguf, name: string, more: [string, RawValue][] = [], tensors: RawTensor[] = []): RawGguf => ({
  metadata: [
    ...file.metadata!.map(([key, value]): [string, RawValue] =>
      key === "general.architecture" ? [key, raw.text(name)] : [key.replace(/^llama\./, `${name}.`), value],
    ),
    ...more,
  ],
  tensors: [...file.tensors!, ...tensors],
});

/** A sound file of one of the architectures, in one of the types. */
function sound(roll: Dice): RawGguf {
  const code = pick(roll, [0, 0, 1, 2, 3, 8, 30]);
  const tensors = tinyLlama.tensors.map((tensor) =>
    tensor.dims.length === 2 ? withType(tensor, code, roll) : withType(tensor, 0, roll),
  );
  const file = { metadata: [...tinyLlama.metadata], tensors };
  const norm = (name: string, size: number): RawTensor =>
    withType({ name, dims: [size], code: 0, data: new Uint8Array() }, 0, roll);
  const headNorms = [norm("blk.0.attn_q_norm.weight", 16), norm("blk.0.attn_k_norm.weight", 16)];
  switch (roll(5)) {
    case 0:
      return renamed(file, "qwen3", [], headNorms);
    case 1:
      return renamed(
        file,
        "gemma3",
        [["gemma3.attention.sliding_window", raw.u32(4)]],
        [...headNorms, norm("blk.0.post_attention_norm.weight", 32), norm("blk.0.post_ffw_norm.weight", 32)],
      );
    case 2:
      return {
        ...file,
        tensors: [
          ...tensors,
          { name: "rope_freqs.weight", dims: [8], code: 0, data: new Uint8Array(new Float32Array(8).fill(1).buffer) },
        ],
      };
    default:
      return file;
  }
}

const f32 = (value: number): RawValue => [6, new Uint8Array(new Float32Array([value]).buffer)];

function anyValue(roll: Dice): RawValue {
  switch (roll(7)) {
    case 0:
      return f32(pick(roll, edgeNumbers));
    case 1:
      return raw.text(pick(roll, ["", "llama", "yarn", "linear", "\u0000", "x".repeat(5000)]));
    case 2:
      return raw.flag(roll(2) === 0);
    case 3:
      return [10, u64(BigInt(pick(roll, edgeSizes)) << BigInt(roll(32)))];
    case 4:
      return raw.list(
        4,
        Array.from({ length: roll(6) }, () => u32(pick(roll, edgeSizes))),
      );
    case 5:
      return raw.texts(Array.from({ length: roll(6) }, () => pick(roll, ["a", "b", "ab", "a b", " ", "", "<end>"])));
    default:
      return raw.u32(pick(roll, edgeSizes));
  }
}

/** Keys that change what is computed, beside those that the file has. */
const moreKeys = [
  "llama.attention.key_length",
  "llama.rope.dimension_count",
  "llama.rope.freq_base",
  "llama.rope.scaling.factor",
  "llama.rope.scaling.type",
  "llama.expert_count",
  "llama.expert_used_count",
  "gemma3.attention.sliding_window_pattern",
  "general.alignment",
  "split.count",
  "split.no",
  "tokenizer.ggml.bos_token_id",
  "tokenizer.ggml.eot_token_id",
  "tokenizer.ggml.scores",
  "tokenizer.ggml.add_bos_token",
];

function mutate(file: RawGguf, roll: Dice): RawGguf {
  const { metadata = [], tensors = [] } = file;
  const entry = roll(metadata.length);
  const at = roll(Math.max(1, tensors.length));
  const put = (change: (tensor: RawTensor) => RawTensor): RawGguf => ({
    ...file,
    tensors: tensors.map((tensor, i) => (i === at ? change(tensor) : tensor)),
  });
  switch (roll(12)) {
    case 0:
    case 1:
      return { ...file, metadata: metadata.map((pair, i) => (i === entry ? [pair[0], anyValue(roll)] : pair)) };
    case 2: {
      const isNumber = ([, [code]]: [string, RawValue]) => code === 4;
      const numbers = metadata.filter(isNumber);
      const [key] = numbers[roll(numbers.length)] ?? metadata[entry]!;
      return {
        ...file,
        metadata: metadata.map((pair) => (pair[0] === key ? [key, raw.u32(pick(roll, edgeSizes))] : pair)),
      };
    }
    case 3:
      return { ...file, metadata: metadata.filter((_, i) => i !== entry) };
    case 4:
      return { ...file, metadata: [...metadata, [pick(roll, moreKeys), anyValue(roll)]] };
    case 5:
      return { ...file, tensors: tensors.filter((_, i) => i !== at) };
    case 6:
      return put((tensor) => {
        const dims = tensor.dims.map((dim) => (roll(2) === 0 ? Math.min(pick(roll, edgeSizes), 4096) : dim));
        return { ...tensor, dims, data: data(product(dims), tensor.code, roll) };
      });
    case 7:
      return put((tensor) => ({
        ...tensor,
        dims: [
          ...tensor.dims.map((dim) => (roll(3) === 0 ? pick(roll, edgeSizes) : dim)),
          ...(roll(4) === 0 ? [1] : []),
        ],
      }));
    case 8:
      return put((tensor) => withType(tensor, pick(roll, Object.keys(types).map(Number)), roll));
    case 9:
      return put((tensor) => ({
        ...tensor,
        name: pick(roll, [
          tensor.name,
          "output.weight",
          "blk.0.attn_q.bias",
          "blk.9.attn_q.weight",
          "rope_freqs.weight",
          "blk.0.ffn_gate.1.weight",
          "x",
        ]),
      }));
    case 10:
      return put((tensor) => ({ ...tensor, data: mutateBytes(tensor.data, roll) }));
    default:
      return put((tensor) => ({ ...tensor, offset: pick(roll, [0, 32, 64, 2 ** 20, 2 ** 40]) }));
  }
}

/** Writes the file of a seed into the folder, and returns its path. */
export function hostileGguf(seed: number, folder: string): string {
  const roll = dice(seed);
  let file = sound(roll);
  for (let left = 1 + roll(2); left > 0; left--) file = mutate(file, roll);
  if (roll(20) === 0) file = { ...file, counts: [BigInt(pick(roll, edgeSizes)), BigInt(pick(roll, edgeSizes))] };
  let bytes = ggufBytes(file);
  if (roll(6) === 0) bytes = mutateBytes(bytes, roll);
  if (roll(30) === 0) bytes = bytes.subarray(0, roll(bytes.length));
  const path = join(folder, "model.gguf");
  writeFileSync(path, bytes);
  return path;
}
