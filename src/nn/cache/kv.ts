/** The cache of full attention: keys and values of all tokens, in buffers that grow by blocks. */
import type { Tensor } from "../../mlx";
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
    return this.#buffers.empty;
  }

  update(keys: Tensor, values: Tensor): [Tensor, Tensor] {
    const before = this.#offset;
    const count = keys.dim(2);
    this.#buffers.change([keys, values], (buffer, added) => writeRows(roomFor(added, buffer, before), before, added));
    this.#offset += count;
    return this.#buffers.first(this.#offset);
  }

  /** The row that the next token goes to. */
  get row(): number {
    return this.#offset;
  }

  /**
   * Keys and values (B, Hkv, S, D) with room for one more token, for an operation that writes it to `row` in place;
   * null where there is no room, or where somebody else may hold them.
   */
  get room(): [Tensor, Tensor] | null {
    return this.#buffers.room(this.#offset);
  }

  /** Takes the token that `writer` writes to the buffers of `room` when it is evaluated. */
  filledBy(writer: Tensor): void {
    this.#buffers.filledBy(writer);
    this.#offset++;
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

  get pending(): unknown {
    return this.#buffers.pending;
  }

  /** Keys, values (with their unused rows), offset. */
  get state(): State {
    return [this.#buffers.keys, this.#buffers.values, this.#offset];
  }

  set state([keys, values, offset]: State) {
    this.#buffers.set(keys, values);
    this.#offset = offset;
  }

  dispose(): void {
    this.#buffers.dispose();
    this.#offset = 0;
  }
}
