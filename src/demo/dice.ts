/** Seeded choices: the same seed writes the same text on every machine. */

/** xorshift32, after Marsaglia 2003, "Xorshift RNGs". */
export class Dice {
  private state: number;

  constructor(seed: number) {
    // Neighbouring seeds are spread apart, and zero, which would stay zero, is avoided.
    this.state = Math.imul(seed + 1, 0x9e3779b1) >>> 0 || 1;
    for (let i = 0; i < 8; i++) this.next();
  }

  /** A uint32. */
  private next(): number {
    let x = this.state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.state = x >>> 0;
    return this.state;
  }

  /** A whole number in [low, high]. */
  between(low: number, high: number): number {
    return low + Math.floor((this.next() / 2 ** 32) * (high - low + 1));
  }

  chance(probability: number): boolean {
    return this.next() / 2 ** 32 < probability;
  }

  pick<T>(options: readonly T[]): T {
    return options[this.between(0, options.length - 1)]!;
  }

  /** One of the values, each as likely as its weight says. */
  weighted<T>(options: readonly (readonly [weight: number, value: T])[]): T {
    const total = options.reduce((sum, [weight]) => sum + weight, 0);
    let left = (this.next() / 2 ** 32) * total;
    for (const [weight, value] of options) {
      left -= weight;
      if (left < 0) return value;
    }
    return options.at(-1)![1];
  }
}
