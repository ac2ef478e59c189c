/** Hostile GGUF files: sound ones with a few parts changed. */
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ggufBytes, type RawGguf, type RawTensor, type RawValue, raw, tinyLlama, u32, u64 } from "../gguf-file";
import { everyType } from "../parity/gguf-blocks";
import { type Dice, dice, pick } from "./dice";
import { edgeNumbers, edgeSizes, mutateBytes } from "./edges";

/** Numbers in a block, and its bytes, by code: of all types that are read, one that is not, and one that there is not. */
const types: Readonly<Record<number, readonly [block: number, bytes: number]>> = {
  ...Object.fromEntries(everyType.map(({ code, block, bytes }) => [code, [block, bytes] as const])),
  24: [1, 1],
  99: [1, 1],
};

const codes = Object.keys(types).map(Number);

/** Wide enough for a block of any type. */
const wide = 256;

/** The same file with 256 features in the place of 32. */
function widened({ metadata, tensors }: RawGguf): RawGguf {
  const factor = wide / 32;
  const sizes = ["llama.embedding_length", "llama.feed_forward_length"];
  return {
    metadata: metadata!.map(([key, value]) => [key, sizes.includes(key) ? raw.u32(wide) : value]),
    tensors: tensors!.map((tensor) => {
      const dims = tensor.dims.map((dim) => (dim === 4 ? dim : dim * factor));
      return { ...tensor, dims };
    }),
  };
}

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

/** Every byte and a few words, as files have RWKV's tokens. */
const rwkvTokens = [
  "<s>",
  ...Array.from({ length: 256 }, (_, byte) => `\\x${byte.toString(16).padStart(2, "0")}`),
  ...["ab", "abab", "ba"],
];

/** The same with RWKV's tokenizer, which has more tokens. */
function withRwkv({ metadata, tensors }: RawGguf, roll: Dice): RawGguf {
  const own: Record<string, RawValue> = {
    "tokenizer.ggml.model": raw.text("rwkv"),
    "tokenizer.ggml.tokens": raw.texts(rwkvTokens),
    "tokenizer.ggml.token_type": raw.list(
      5,
      rwkvTokens.map((_, id) => u32(id === 0 ? 3 : 1)),
    ),
    "tokenizer.ggml.eos_token_id": raw.u32(0),
  };
  return {
    metadata: metadata!.map(([key, value]) => [key, own[key] ?? value]),
    tensors: tensors!.map((tensor) =>
      tensor.name === "token_embd.weight"
        ? withType({ ...tensor, dims: [tensor.dims[0]!, rwkvTokens.length] }, 0, roll)
        : tensor,
    ),
  };
}

/** A factor beside a weight. */
const factor = (name: string, roll: Dice): RawTensor =>
  withType({ name: name.replace(".weight", ".scale"), dims: [1], code: 0, data: new Uint8Array() }, 0, roll);

/** A sound file of one of the architectures, in one of the types. */
function sound(roll: Dice): RawGguf {
  const isWide = roll(2) === 0;
  const code = isWide
    ? pick(
        roll,
        codes.filter((one) => one !== 24 && one !== 99),
      )
    : pick(roll, [0, 0, 1, 2, 3, 8, 30]);
  const plain = isWide ? widened(tinyLlama) : tinyLlama;
  const tensors = plain.tensors!.map((tensor) =>
    tensor.dims.length === 2 ? withType(tensor, code, roll) : withType(tensor, 0, roll),
  );
  const file: RawGguf = { metadata: [...plain.metadata!], tensors };
  if (isWide) {
    if (roll(6) === 0) return withRwkv(file, roll);
    const scaled = tensors.filter(({ name }) => name.startsWith("blk.0.ffn_") && roll(2) === 0);
    return roll(4) === 0 ? { ...file, tensors: [...tensors, ...scaled.map(({ name }) => factor(name, roll))] } : file;
  }
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
  "llama.nextn_predict_layers",
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
      return put((tensor) => withType(tensor, pick(roll, codes), roll));
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
          "blk.0.ffn_up.scale",
          "blk.0.ffn_up.input_scale",
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
  if (roll(8) === 0) return inParts(file, folder, roll);
  const path = join(folder, "model.gguf");
  writeFileSync(path, bytes);
  return path;
}

/** The file in two parts, as gguf-split makes them, one of which may be broken or missing. */
function inParts({ metadata = [], tensors = [] }: RawGguf, folder: string, roll: Dice): string {
  const cut = roll(tensors.length + 1);
  const parts = [tensors.slice(0, cut), tensors.slice(cut)].map((own, index) => {
    const split: [string, RawValue][] = [
      ["split.no", raw.u32(roll(10) === 0 ? pick(roll, edgeSizes) : index)],
      ["split.count", raw.u32(roll(10) === 0 ? pick(roll, edgeSizes) : 2)],
      ["split.tensors.count", raw.u32(tensors.length)],
    ];
    const bytes = ggufBytes({ metadata: index === 0 ? [...metadata, ...split] : split, tensors: own });
    return roll(5) === 0 ? mutateBytes(bytes, roll) : bytes;
  });
  const places = parts.map((_, index) => join(folder, `model-0000${index + 1}-of-00002.gguf`));
  for (const place of places) rmSync(place, { force: true });
  for (const [index, bytes] of parts.entries()) if (index === 0 || roll(8) > 0) writeFileSync(places[index]!, bytes);
  return places[0]!;
}
