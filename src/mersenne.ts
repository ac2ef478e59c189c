/**
 * The Mersenne Twister MT19937 as CPython and NumPy seed it and draw from it: few-shot examples, bootstraps, shuffles and
 * orders of batches come out as in Python for the same seed. Matsumoto & Nishimura 1998, doi:10.1145/272991.272995.
 */

const length = 624;
const middle = 397;

class Twister {
  readonly #state = new Uint32Array(length);
  #at = length;

  /** NumPy's seeding by one number. */
  static ofNumber(seed: number): Twister {
    const twister = new Twister();
    const state = twister.#state;
    state[0] = seed;
    for (let i = 1; i < length; i++) state[i] = Math.imul(1812433253, mixed(state[i - 1]!)) + i;
    return twister;
  }

  /** CPython's seeding by a key of 32-bit words, the lowest first. */
  static ofKey(key: readonly number[]): Twister {
    const twister = Twister.ofNumber(19650218);
    const state = twister.#state;
    let i = 1;
    let j = 0;
    const wrap = () => {
      if (++i < length) return;
      state[0] = state[length - 1]!;
      i = 1;
    };
    for (let n = Math.max(length, key.length); n > 0; n--) {
      state[i] = (state[i]! ^ Math.imul(mixed(state[i - 1]!), 1664525)) + key[j]! + j;
      wrap();
      j = (j + 1) % key.length;
    }
    for (let n = length - 1; n > 0; n--) {
      state[i] = (state[i]! ^ Math.imul(mixed(state[i - 1]!), 1566083941)) - i;
      wrap();
    }
    state[0] = 0x80000000;
    return twister;
  }

  /** 32 random bits. */
  word(): number {
    if (this.#at === length) this.#twist();
    let y = this.#state[this.#at++]!;
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  #twist(): void {
    const state = this.#state;
    for (let i = 0; i < length; i++) {
      const y = (state[i]! & 0x80000000) | (state[(i + 1) % length]! & 0x7fffffff);
      state[i] = state[(i + middle) % length]! ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.#at = 0;
  }
}

const mixed = (word: number) => word ^ (word >>> 30);

/** Python's `random.Random(seed)`, for seeds that are integers. */
export class PythonRandom {
  readonly #twister: Twister;

  constructor(seed: number) {
    const size = Math.abs(seed);
    const high = Math.floor(size / 2 ** 32);
    this.#twister = Twister.ofKey(high > 0 ? [size >>> 0, high] : [size >>> 0]);
  }

  /** In [0, 1), of 53 bits. */
  random(): number {
    const high = this.#twister.word() >>> 5;
    const low = this.#twister.word() >>> 6;
    return (high * 67108864 + low) / 9007199254740992;
  }

  /** An integer in [0, count), for counts from 1 to below 2³². */
  below(count: number): number {
    const unused = Math.clz32(count);
    while (true) {
      const value = this.#twister.word() >>> unused;
      if (value < count) return value;
    }
  }

  /**
   * `count` items without one taken twice, in random order.
   * @throws RangeError where there are fewer
   */
  sample<T>(items: readonly T[], count: number): T[] {
    const size = items.length;
    if (count > size) throw new RangeError(`${count} of ${size} items cannot be sampled`);
    // From here on Python keeps a pool of all items rather than a set of those taken; the draws differ.
    const poolUpTo = 21 + (count > 5 ? 4 ** Math.ceil(Math.log(count * 3) / Math.log(4)) : 0);
    if (size <= poolUpTo) {
      const pool = [...items];
      return Array.from({ length: count }, (_, i) => {
        const j = this.below(size - i);
        const item = pool[j]!;
        pool[j] = pool[size - i - 1]!;
        return item;
      });
    }
    const taken = new Set<number>();
    while (taken.size < count) taken.add(this.below(size));
    return [...taken].map((i) => items[i]!);
  }

  /** Indices of `choices(items, k=size)`: with repetition. */
  choices(size: number, into: Uint32Array): void {
    for (let i = 0; i < into.length; i++) into[i] = this.random() * size;
  }

  shuffle<T>(items: T[]): void {
    for (let i = items.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      [items[i], items[j]] = [items[j]!, items[i]!];
    }
  }
}

/** NumPy's `np.random.RandomState(seed)`, which its global functions draw from. */
export class NumpyRandom {
  readonly #twister: Twister;

  constructor(seed: number) {
    this.#twister = Twister.ofNumber(seed);
  }

  /** 0 … count − 1 in random order. */
  permutation(count: number): number[] {
    const items = Array.from({ length: count }, (_, i) => i);
    for (let i = count - 1; i > 0; i--) {
      const mask = 0xffffffff >>> Math.clz32(i);
      let j: number;
      do j = (this.#twister.word() & mask) >>> 0;
      while (j > i);
      [items[i], items[j]] = [items[j]!, items[i]!];
    }
    return items;
  }
}
