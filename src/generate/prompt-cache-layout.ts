/**
 * The layout of prompt-cache files of mlx-lm 0.32.2, which reads them and writes them: the leaves of all states under
 * dotted places, what is no tensor as a small one, and in the metadata the kinds of caches and which leaves those are.
 */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import type { TensorEntry } from "../mlx/safetensors-header";
import type { CacheState } from "../nn";

/** The layout's sections in the metadata, by their first index. */
const [user, classes, scalars] = ["0", "1", "2"] as const;

/** How deep places nest: room for lists of lists of packed caches. */
const deepest = 12;

/** No name of a kind is as long. */
const longestText = 256;

const floats = ["F16", "BF16", "F32"];
const integers = ["BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "I64"];

type Leaf = Exclude<CacheState, CacheState[]>;

/** Refuses the file for a problem, which is a clause. */
export type Refuse = (problem: string) => never;

/** The leaves of a state with their places. */
export function* leaves(place: string, state: CacheState): Generator<[place: string, leaf: Leaf]> {
  if (!Array.isArray(state)) yield [place, state];
  else for (const [i, part] of state.entries()) yield* leaves(`${place}.${i}`, part);
}

/** A file's tensors and metadata, in the making. */
export class LayoutWriter {
  readonly arrays = new Map<string, Tensor>();
  /** mlx-lm drops empty lists: the first entry stands for none. */
  readonly facts: Record<string, string> = { [`${scalars}.0`]: "" };
  #scalars = 0;

  constructor(metadata: Readonly<Record<string, string>>) {
    for (const [name, value] of Object.entries(metadata)) this.facts[`${user}.${name}`] = value;
  }

  add(layer: number, kind: string, state: CacheState): void {
    this.facts[`${classes}.${layer}`] = kind;
    for (const [place, leaf] of leaves(`${layer}`, state)) {
      if (leaf instanceof mx.Tensor) {
        this.arrays.set(place, leaf);
        continue;
      }
      const [word, tensor] = written(leaf);
      this.arrays.set(place, tensor);
      this.#scalars += 1;
      this.facts[`${scalars}.${this.#scalars}.0`] = place;
      this.facts[`${scalars}.${this.#scalars}.1`] = word;
    }
  }
}

function written(leaf: Exclude<Leaf, Tensor>): [word: string, tensor: Tensor] {
  if (leaf === null) return ["none", mx.array([])];
  if (typeof leaf === "string") {
    const codes = Array.from(leaf, (character) => character.codePointAt(0)!);
    return ["string", mx.array(codes, "int32")];
  }
  if (typeof leaf === "boolean") return ["scalar", mx.array(leaf)];
  return ["scalar", mx.array(leaf, Number.isInteger(leaf) ? "int32" : "float32")];
}

/** What a file's header says; `states` needs the tensors as well. */
export class LayoutReader {
  readonly #words = new Map<string, string>();
  readonly #places = new Map<string, readonly number[]>();

  /** Checks everything that needs no bytes of tensors. */
  constructor(
    private readonly entries: ReadonlyMap<string, TensorEntry>,
    private readonly facts: ReadonlyMap<string, string>,
    private readonly refuse: Refuse,
  ) {
    for (const name of entries.keys()) this.#places.set(name, this.#placeOf(name));
    this.#readWords();
    for (const [name, entry] of entries) this.#checkLeaf(name, entry);
    if (entries.size === 0) refuse("it has no layers");
  }

  /** What was to be remembered beside the caches. */
  get metadata(): Record<string, string> {
    const own = [...this.facts].filter(([name]) => name.startsWith(`${user}.`));
    return Object.fromEntries(own.map(([name, value]) => [name.slice(user.length + 1), value]));
  }

  kindOf(layer: number): string {
    return this.facts.get(`${classes}.${layer}`) ?? this.refuse(`layer ${layer} has no kind`);
  }

  /** Which places hold no tensors, and what instead. */
  #readWords(): void {
    const { facts, refuse } = this;
    if (facts.get(`${scalars}.0`) !== "") {
      const isOld = facts.has(`${scalars}.0`);
      refuse(isOld ? "it has the layout of mlx-lm before 0.32.1" : "its metadata does not say what its tensors are");
    }
    for (let i = 1; facts.has(`${scalars}.${i}.0`); i++) {
      const place = facts.get(`${scalars}.${i}.0`)!;
      const word = facts.get(`${scalars}.${i}.1`) ?? "";
      if (!["scalar", "string", "none"].includes(word)) refuse(`it has a value of the unknown kind ${quoted(word)}`);
      if (!this.entries.has(place))
        refuse(`its metadata (${scalars}.${i}) describes ${quoted(place)}, which is not there`);
      this.#words.set(place, word);
    }
  }

  #placeOf(name: string): readonly number[] {
    // Four digits and a dot a level: a longer name is not even split.
    const parts = name.length <= deepest * 5 ? name.split(".") : [];
    const isPlace = parts.length > 1 && parts.length <= deepest && parts.every((part) => /^\d{1,4}$/.test(part));
    if (!isPlace) this.refuse(`it has a tensor ${quoted(name)}, and no state has such a place`);
    return parts.map(Number);
  }

  #checkLeaf(name: string, { dtype, shape, end, start }: TensorEntry): void {
    const word = this.#words.get(name);
    const size = shape.reduce((product, dim) => product * dim, 1);
    const isInteger = integers.includes(dtype);
    const forms: Record<string, boolean> = {
      tensor: true,
      none: end === start,
      scalar: size === 1,
      string: shape.length === 1 && (size === 0 || (isInteger && size <= longestText)),
    };
    const fits = forms[word ?? "tensor"] && (isInteger || floats.includes(dtype));
    if (!fits)
      this.refuse(`${name} is not what its metadata says: ${word ?? "a tensor"} of ${dtype} (${shape.join(", ")})`);
  }

  /** The state of each layer. Tensors are read lazily, all other leaves now. */
  states(arrays: ReadonlyMap<string, Tensor>): CacheState[] {
    const states: CacheState[] = [];
    const inOrder = [...this.#places].sort(([, a], [, b]) => comparePlaces(a, b));
    for (const [name, place] of inOrder) this.#put(states, place, this.#read(name, arrays.get(name)!));
    const isExtra = (name: string) => name.startsWith(`${classes}.`) && !(Number(name.slice(2)) < states.length);
    const extra = [...this.facts.keys()].find(isExtra);
    if (extra) this.refuse(`its metadata (${printable(extra)}) names the kind of a layer that is not there`);
    return states;
  }

  #read(name: string, tensor: Tensor): Leaf {
    const word = this.#words.get(name);
    if (word === undefined) return tensor;
    if (word === "none") return null;
    if (word === "scalar") return tensor.item() as number;
    const codes = tensor.toList() as number[];
    const isText = codes.every((code) => Number.isInteger(code) && code >= 0 && code <= 0x10ffff);
    return isText ? String.fromCodePoint(...codes) : this.refuse(`${name} is not what its metadata says: no text`);
  }

  /** Puts a leaf at its place in nested lists. In order, each place is the next one of its list: there are no holes. */
  #put(states: CacheState[], place: readonly number[], leaf: Leaf): void {
    let list = states;
    for (const [level, index] of place.entries()) {
      const at = place.slice(0, level + 1).join(".");
      const isLast = level === place.length - 1;
      if (index > list.length) {
        const missing = [...place.slice(0, level), list.length].join(".");
        this.refuse(`it has ${at}, but lacks ${missing}`);
      }
      if (index === list.length) list.push(isLast ? leaf : []);
      else if (isLast || !Array.isArray(list[index]))
        this.refuse(`${at} is there twice, or a value and a list at once`);
      list = list[index] as CacheState[];
    }
  }
}

function comparePlaces(a: readonly number[], b: readonly number[]): number {
  const level = a.findIndex((index, i) => index !== b[i]);
  return level < 0 ? a.length - b.length : a[level]! - (b[level] ?? -1);
}

/** A foreign text within a sentence: cut, and without control characters. */
export const quoted = (text: string): string =>
  printable(JSON.stringify(text.length > 60 ? `${text.slice(0, 60)}…` : text));

/** The same for a sentence with foreign texts in it. */
export const printable = (text: string): string => {
  const cut = text.length > 300 ? `${text.slice(0, 200)} … ${text.slice(-100)}` : text;
  const escaped = (character: string) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
  return cut.replace(/\p{Cc}/gu, escaped);
};
