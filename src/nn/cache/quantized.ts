/** The cache of full attention in few bits: keys and values of all tokens, packed, in buffers that grow by blocks. */

import * as mx from "../../mlx";
import { Tensor } from "../../mlx";
import type { Mask, MaskOptions } from "../mask";
import { windowedMask } from "../masks";
import { roomFor, rows, writeRows } from "./buffer";
import type { KeyValueCache } from "./cache";
import { type CacheKind, type CacheState, columnsProblem, firstProblem, isFloating, shown } from "./kind";
import { type KvQuantization, type Packed, packRows, QuantizedRows } from "./rows";

type State = [keys: Packed | null, values: Packed | null, offset: number, groupSize: number, bits: number];

export class QuantizedKVCache implements KeyValueCache {
  static readonly kind: CacheKind<QuantizedKVCache> = {
    name: "QuantizedKVCache",
    fields: ["keys", "values", "offset", "group size", "bits"],
    problem: ([keys, values, offset, groupSize, bits]) =>
      firstProblem(
        () => choiceProblem("group size", groupSize, mx.packings.affine.groupSizes),
        () => choiceProblem("bits", bits, mx.packings.affine.bits),
        () => {
          if (keys === null && values === null) return columnsProblem(null, null, ["offset", offset]);
          const how = { groupSize: groupSize as number, bits: bits as number };
          return packedProblem("keys", keys, how) ?? packedProblem("values", values, how);
        },
        () =>
          keys === null
            ? null
            : columnsProblem((keys as CacheState[])[1], (values as CacheState[])[1], ["offset", offset]),
      ),
    restore(state) {
      const cache = new QuantizedKVCache();
      cache.state = state as unknown as State;
      return cache;
    },
  };

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

function choiceProblem(name: string, value: CacheState | undefined, allowed: readonly number[]): string | null {
  return allowed.includes(value as number) ? null : `its ${name} is ${shown(value)}, not one of ${allowed.join(", ")}`;
}

function packedProblem(name: string, x: CacheState | undefined, { groupSize, bits }: KvQuantization): string | null {
  const parts = Array.isArray(x) && x.length === 3 && x.every((part) => part instanceof Tensor) ? x : null;
  if (!parts) return `its ${name} are not three tensors (packed, scales, biases)`;
  const [packed, scales, biases] = parts as Packed;
  const isPacked = packed.dtype === "uint32" && isFloating(scales) && scales.dtype === biases.dtype;
  if (!isPacked)
    return `its ${name} are of ${packed.dtype}, ${scales.dtype} and ${biases.dtype}, not uint32 and floats`;
  const width = (scales.ndim === 4 ? scales.dim(3) : 0) * groupSize * bits;
  const agree =
    String(scales.shape) === String(biases.shape) &&
    packed.ndim === 4 &&
    scales.ndim === 4 &&
    [0, 1, 2].every((axis) => packed.dim(axis) === scales.dim(axis)) &&
    packed.dim(3) * 32 === width;
  return agree ? null : `its ${name} are ${parts.map(shown).join(", ")}: no ${bits} bits in groups of ${groupSize}`;
}
