/**
 * NumPy's global generator as far as the order of batches needs it: MT19937, `np.random.seed` and `np.random.permutation`.
 * Matsumoto & Nishimura 1998, doi:10.1145/272991.272995.
 */

const length = 624;
const middle = 397;

const state = new Uint32Array(length);
let at = length;

/** Starts the sequence anew. */
export function seed(value: number): void {
  state[0] = value;
  for (let i = 1; i < length; i++) {
    const before = state[i - 1]!;
    state[i] = Math.imul(1812433253, before ^ (before >>> 30)) + i;
  }
  at = length;
}

function refill(): void {
  for (let i = 0; i < length; i++) {
    const y = (state[i]! & 0x80000000) | (state[(i + 1) % length]! & 0x7fffffff);
    state[i] = state[(i + middle) % length]! ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
  }
  at = 0;
}

/** 32 random bits. */
function word(): number {
  if (at === length) refill();
  let y = state[at++]!;
  y ^= y >>> 11;
  y ^= (y << 7) & 0x9d2c5680;
  y ^= (y << 15) & 0xefc60000;
  return (y ^ (y >>> 18)) >>> 0;
}

/** 0 … count − 1 in random order. */
export function permutation(count: number): number[] {
  const items = Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const mask = 0xffffffff >>> Math.clz32(i);
    let j: number;
    do j = (word() & mask) >>> 0;
    while (j > i);
    [items[i], items[j]] = [items[j]!, items[i]!];
  }
  return items;
}

seed(0);
