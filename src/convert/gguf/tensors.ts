/** The tensors of a GGUF file, in MLX's forms: plain ones as they are, blocks of 32 as affine quantizations. */
import { closeSync, openSync, readSync } from "node:fs";
import { basename } from "node:path";
import { UserError } from "../../errors";
import type { Dtype, Tensor } from "../../mlx";
import * as mx from "../../mlx";
import type { GgufTensor } from "./header";

/** Numbers in a block of each quantized type. */
export const groupSize = 32;

/** A plain tensor, or a packed one of so many bits. */
export interface Loaded {
  weight: Tensor;
  scales?: Tensor;
  biases?: Tensor;
  bits?: number;
}

const plain: Readonly<Record<string, Dtype>> = { F32: "float32", F16: "float16", BF16: "bfloat16" };

/** Most bytes of one read: a system call takes no more than 2 GB. */
const longestRead = 2 ** 30;

/** The file, for reading its tensors one after the other. */
export class GgufData {
  readonly #file: number;

  constructor(private readonly path: string) {
    this.#file = openSync(path, "r");
  }

  /** Reads and evaluates a tensor, so that its bytes are let go. */
  read({ type, shape, start, bytes }: GgufTensor): Loaded {
    return mx.scope(() => {
      const data = this.bytes(start, bytes);
      const dtype = plain[type.name];
      const loaded = dtype
        ? { weight: mx.array(data, "uint8").view(dtype).reshape(shape) }
        : unpackers[type.name]!(mx.array(data, "uint8", [...blocksOf(shape), type.bytes]));
      mx.eval(Object.values(loaded).filter((part) => part instanceof mx.Tensor));
      return loaded;
    });
  }

  private bytes(start: number, length: number): Uint8Array {
    const data = new Uint8Array(length);
    for (let done = 0; done < length; ) {
      const read = readSync(this.#file, data, done, Math.min(length - done, longestRead), start + done);
      if (read === 0) {
        throw new UserError(
          `${basename(this.path)} ends at byte ${start + done}: it became shorter while it was read`,
          {
            hint: "Try again when nothing writes to the file.",
          },
        );
      }
      done += read;
    }
    return data;
  }

  close(): void {
    closeSync(this.#file);
  }
}

/** (…, K) → (…, K / 32) */
const blocksOf = (shape: readonly number[]) => [...shape.slice(0, -1), shape.at(-1)! / groupSize];

/** Bytes [from, to) of every block. */
const part = (blocks: Tensor, from: number, to?: number) => blocks.at(mx.ellipsis, mx.slice(from, to));

/** The first number of every block, a float16: (…, B, bytes) → (…, B) */
const half = (blocks: Tensor, from: number) =>
  mx
    .contiguous(part(blocks, from, from + 2))
    .view("float16")
    .squeeze(-1);

/** Sixteen bytes with value j low and value j + 16 high → MLX's words: (…, B, 16) → (…, 4 B) */
function nibbles(bytes: Tensor): Tensor {
  const values = mx.concatenate([bytes.bitwiseAnd(15), bytes.rightShift(4)], { axis: -1 });
  const even = values.at(mx.ellipsis, mx.slice(undefined, undefined, 2));
  const odd = values.at(mx.ellipsis, mx.slice(1, undefined, 2));
  return words(even.bitwiseOr(odd.leftShift(4)));
}

/** (…, B, bytes) → (…, B · bytes / 4) uint32 */
const words = (bytes: Tensor) => mx.contiguous(bytes).view("uint32").flatten(-2, -1);

/** q · scale − zero · scale */
const symmetric = (weight: Tensor, scales: Tensor, bits: number): Loaded => {
  return { weight, scales, biases: scales.multiply(-(2 ** (bits - 1))), bits };
};

/** Blocks (…, B, bytes) of each type, as llama.cpp lays them out. */
const unpackers: Readonly<Record<string, (blocks: Tensor) => Loaded>> = {
  Q4_0: (blocks) => symmetric(nibbles(part(blocks, 2)), half(blocks, 0), 4),
  Q4_1: (blocks) => ({ weight: nibbles(part(blocks, 4)), scales: half(blocks, 0), biases: half(blocks, 2), bits: 4 }),
  // Signed bytes become unsigned ones that are greater by 128.
  Q8_0: (blocks) => symmetric(words(mx.bitwiseXor(part(blocks, 2), 128)), half(blocks, 0), 8),
};
