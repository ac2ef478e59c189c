/** Full attention with nothing but concatenation: for layers that read few, large blocks. */
import type { Tensor } from "../../mlx";
import type { Mask, MaskOptions } from "../mask";
import { windowedMask } from "../masks";
import { Buffers, joinRows } from "./buffer";
import type { KeyValueCache } from "./cache";
import { type CacheKind, columnsProblem } from "./kind";

type State = [keys: Tensor | null, values: Tensor | null];

export class ConcatenateKVCache implements KeyValueCache {
  static readonly kind: CacheKind<ConcatenateKVCache> = {
    name: "ConcatenateKVCache",
    fields: ["keys", "values"],
    problem: ([keys, values]) => columnsProblem(keys, values, ["length", 0]),
    restore(state) {
      const cache = new ConcatenateKVCache();
      cache.state = state as State;
      return cache;
    },
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
    const held = this.empty ? null : this.#buffers.first(this.#offset);
    if (held) this.#buffers.set(joinRows(held[0], keys), joinRows(held[1], values));
    else this.#buffers.set(keys, values);
    this.#offset += keys.dim(2);
    return [this.#buffers.keys!, this.#buffers.values!];
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

  /** Keys and values of the tokens that were not taken back. */
  get state(): State {
    return [this.#buffers.keys, this.#buffers.values];
  }

  set state([keys, values]: State) {
    this.#buffers.set(keys, values);
    this.#offset = keys?.dim(2) ?? 0;
  }

  dispose(): void {
    this.#buffers.dispose();
    this.#offset = 0;
  }
}
