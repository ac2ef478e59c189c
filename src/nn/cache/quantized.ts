/** The cache of full attention in few bits: keys and values of all tokens, packed, in buffers that grow by blocks. */
import { ExitCode, UserError } from "../../errors";
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import { type Mask, windowedMask } from "../masks";
import { roomFor, rows, writeRows } from "./buffer";
import type { KeyValueCache, MaskOptions } from "./cache";

/** How a cache is packed. */
export interface KvQuantization {
  groupSize: number;
  bits: number;
}

/** Packed (B, Hkv, S, D · bits / 32), scales and biases (B, Hkv, S, D / groupSize). */
type Packed = [packed: Tensor, scales: Tensor, biases: Tensor];

/** Keys or values that stay packed until they are multiplied. */
export class QuantizedRows {
  constructor(
    readonly parts: Packed,
    readonly how: KvQuantization,
  ) {}
}

/** @throws UserError where MLX has no such packing, or a head is no multiple of the group */
function packRows(x: Tensor, how: KvQuantization): Packed {
  try {
    return mx.quantize(x, how) as Packed;
  } catch (error) {
    if (!(error instanceof mx.MlxError)) throw error;
    throw new UserError(`the KV cache cannot be quantized so: ${error.message}`, {
      code: ExitCode.usage,
      hint: "--kv-bits takes 2, 3, 4, 5, 6 or 8, --kv-group-size 32, 64 or 128: a divisor of the size of a head.",
      cause: error,
    });
  }
}

type State = [keys: Packed | null, values: Packed | null, offset: number, groupSize: number, bits: number];

export class QuantizedKVCache implements KeyValueCache {
  #keys: Packed | null = null;
  #values: Packed | null = null;
  #offset = 0;

  constructor(private how: KvQuantization = { groupSize: 64, bits: 8 }) {}

  /** A cache with what plain buffers (B, Hkv, S, D) hold, their unused rows too. */
  static of(keys: Tensor | null, values: Tensor | null, offset: number, how: KvQuantization): QuantizedKVCache {
    const cache = new QuantizedKVCache(how);
    mx.scope(() => {
      if (keys && values) cache.#set(packRows(keys, how), packRows(values, how));
    });
    cache.#offset = offset;
    return cache;
  }

  get quantization(): KvQuantization {
    return this.how;
  }

  get offset(): number {
    return this.#offset;
  }

  get size(): number {
    return this.#offset;
  }

  get nbytes(): number {
    return [...(this.#keys ?? []), ...(this.#values ?? [])].reduce((sum, part) => sum + part.nbytes, 0);
  }

  get empty(): boolean {
    return this.#keys === null;
  }

  update(keys: Tensor, values: Tensor): [QuantizedRows, QuantizedRows] {
    const before = this.#offset;
    const grown = (buffers: Packed | null, x: Tensor): Packed => {
      const parts = packRows(x, this.how);
      return parts.map((part, i) => writeRows(roomFor(part, buffers?.[i] ?? null, before), before, part)) as Packed;
    };
    this.#set(grown(this.#keys, keys), grown(this.#values, values));
    this.#offset += keys.dim(2);
    return [this.#first(this.#keys!), this.#first(this.#values!)];
  }

  #first(buffers: Packed): QuantizedRows {
    const whole = buffers[0].dim(2) === this.#offset;
    const parts = whole ? buffers : (buffers.map((part) => rows(part, 0, this.#offset)) as Packed);
    return new QuantizedRows(parts, this.how);
  }

  /** Keeps new buffers and gives the old ones back to the current scope, so that MLX can write in place. */
  #set(keys: Packed | null, values: Packed | null): void {
    const old = [this.#keys, this.#values];
    mx.keep([keys, values]);
    mx.release(old);
    this.#keys = keys;
    this.#values = values;
  }

  makeMask(length: number, options: MaskOptions = {}): Mask {
    return windowedMask(length, this.#offset, options);
  }

  isTrimmable(): boolean {
    return true;
  }

  trim(count: number): number {
    const trimmed = Math.min(this.#offset, count);
    this.#offset -= trimmed;
    return trimmed;
  }

  /** Keys, values (with their unused rows), offset, group size, bits. */
  get state(): State {
    return [this.#keys, this.#values, this.#offset, this.how.groupSize, this.how.bits];
  }

  set state([keys, values, offset, groupSize, bits]: State) {
    this.#set(keys, values);
    this.#offset = offset;
    this.how = { groupSize, bits };
  }

  dispose(): void {
    this.#set(null, null);
    this.#offset = 0;
  }
}
