/** Values that are kept as long as what they were made of is the same. */
export class Kept<Value> {
  readonly #all = new WeakMap<object, { facts: readonly unknown[]; value: Value }>();

  /**
   * The value of `key`, which `make` makes where it is not known, or where one of the facts is another now. A fact is an object or
   * a number that the value was made of; all of them have to be named, in the same order each time.
   */
  of(key: object, facts: readonly unknown[], make: () => Value): Value {
    const known = this.#all.get(key);
    if (known && areSame(known.facts, facts)) return known.value;
    const value = make();
    this.#all.set(key, { facts, value });
    return value;
  }
}

function areSame(a: readonly unknown[], b: readonly unknown[]): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
