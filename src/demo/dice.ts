/** Seeded choices: the same seed writes the same text on every machine. */

/** A generator of uint32, xorshift after Marsaglia 2003. */
export class Dice {
  private state: number;

  constructor(seed: number) {
    // Spread small seeds; zero would stay zero.
    this.state = Math.imul(seed + 1, 0x9e3779b1) >>> 0 || 1;
    for (let i = 0; i < 8; i++) this.next();
  }

  next(): number {
    let x = this.state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.state = x >>> 0;
    return this.state;
  }

  /** A whole number in [0, limit). */
  below(limit: number): number {
    return Math.floor((this.next() / 2 ** 32) * limit);
  }

  chance(probability: number): boolean {
    return this.next() / 2 ** 32 < probability;
  }

  pick<T>(options: readonly T[]): T {
    return options[this.below(options.length)]!;
  }
}
