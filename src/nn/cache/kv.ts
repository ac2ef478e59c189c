/** The cache of full attention: keys and values of all tokens, in buffers that grow by blocks. */
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import type { Mask, MaskOptions } from "../mask";
import { windowedMask } from "../masks";
import { BatchKVCache } from "./batch-kv";
import { Buffers, roomFor, writeRows } from "./buffer";
import type { KeyValueCache } from "./cache";
import { type CacheKind, columnsProblem } from "./kind";
import { QuantizedKVCache } from "./quantized";
import type { KvQuantization } from "./rows";

type State = [keys: Tensor | null, values: Tensor | null, offset: number];

export class KVCache implements KeyValueCache {
  static readonly kind: CacheKind<KVCache> = {
    name: "KVCache",
    fields: ["keys", "values", "offset"],
    problem: ([keys, values, offset]) => columnsProblem(keys, values, ["offset", offset]),
    restore(state) {
      const cache = new KVCache();
      cache.state = state as State;
      return cache;
    },
    merge: (caches) => BatchKVCache.merge(caches, () => new KVCache()),
    pack: (cache, how, start) => (cache.offset < start ? null : cache.toQuantized(how)),
  };

  readonly #buffers = new Buffers();
  #offset = 0;
  /** Whether nobody else holds the buffers, so that rows may be written in place. */
  #isSoleHolder = false;
  /** What writes the newest row in place when it is evaluated. */
  #writer: Tensor | null = null;

  get offset(): number {
    return this.#offset;
  }

  get size(): number {
    return this.#offset;
  }

  get nbytes(): number {
    return this.#buffers.nbytes;
  }

  get empty(): boolean {
    return this.#buffers.keys === null;
  }

  update(keys: Tensor, values: Tensor): [Tensor, Tensor] {
    this.#awaitWriter();
    const before = this.#offset;
    const count = keys.dim(2);
    this.#buffers.change([keys, values], (buffer, added) => writeRows(roomFor(added, buffer, before), before, added));
    this.#offset += count;
    this.#isSoleHolder = true;
    return this.#buffers.first(this.#offset);
  }

  /**
   * Keys and values (B, Hkv, S, D) with room for one more token, for an operation that writes it to row `offset` in place;
   * null where there is no room, or where somebody else may hold them.
   */
  get room(): [Tensor, Tensor] | null {
    const { keys, values, length } = this.#buffers;
    return this.#isSoleHolder && this.#offset < length ? [keys!, values!] : null;
  }

  /** Takes the token that `writer` writes to the buffers of `room` when it is evaluated. */
  filledBy(writer: Tensor): void {
    const last = this.#writer;
    this.#writer = mx.keep(writer);
    if (last) mx.release(last);
    this.#offset++;
  }

  /** From here on the buffers are evaluated after what writes to them. */
  #awaitWriter(): void {
    const { keys, values } = this.#buffers;
    if (!this.#writer || !keys || !values) return;
    // A CUDA graph orders its nodes by what they give, and these rows are written behind its back: so in a graph ahead.
    if (mx.defaultDevice() !== "cpu") mx.asyncEval(this.#writer);
    const [writtenKeys, writtenValues] = mx.depends([keys, values], [this.#writer]) as [Tensor, Tensor];
    this.#buffers.set(writtenKeys, writtenValues);
    this.#dropWriter();
  }

  #dropWriter(): void {
    if (this.#writer) mx.release(this.#writer);
    this.#writer = null;
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

  /** The same tokens in few bits. This cache stays as it is. */
  toQuantized(how: KvQuantization): QuantizedKVCache {
    return QuantizedKVCache.of(...this.state, how);
  }

  /** Keys, values (with their unused rows), offset. */
  get state(): State {
    this.#awaitWriter();
    this.#isSoleHolder = false;
    return [this.#buffers.keys, this.#buffers.values, this.#offset];
  }

  set state([keys, values, offset]: State) {
    this.#dropWriter();
    this.#isSoleHolder = false;
    this.#buffers.set(keys, values);
    this.#offset = offset;
  }

  dispose(): void {
    this.#dropWriter();
    this.#buffers.dispose();
    this.#offset = 0;
  }
}
