/** Trees: tensors in nested arrays and plain objects. Other leaves (numbers, strings, null) ride along. */
import { Tensor } from "./tensor";

export type Tree = Tensor | number | string | boolean | null | undefined | Tree[] | { [key: string]: Tree };

function isBranch(value: unknown): value is Record<string, unknown> {
  if (typeof value !== "object" || value === null) return false;
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

/** Calls `visit` for each tensor in arrays, plain objects and maps, in order. */
export function eachTensor(tree: unknown, visit: (tensor: Tensor) => void): void {
  if (tree instanceof Tensor) visit(tree);
  else if (Array.isArray(tree)) for (const item of tree) eachTensor(item, visit);
  else if (tree instanceof Map) for (const item of tree.values()) eachTensor(item, visit);
  else if (isBranch(tree)) for (const key in tree) eachTensor(tree[key], visit);
}

/** The tensors of a tree, in order. */
export function tensorsOf(tree: unknown): Tensor[] {
  const found: Tensor[] = [];
  eachTensor(tree, (tensor) => found.push(tensor));
  return found;
}

/** The tree with each tensor replaced by the next of `tensors`. */
export function refill<T>(tree: T, tensors: Iterator<Tensor>): T {
  return treeMap(() => tensors.next().value as Tensor, tree);
}

/** Applies `fn` to each tensor, beside those at the same place in `rest`; other leaves stay. */
export function treeMap<T>(fn: (tensor: Tensor, ...rest: Tensor[]) => unknown, tree: T, ...rest: unknown[]): T {
  return treeMapWithPath((_, tensor, ...others) => fn(tensor, ...others), tree, ...rest);
}

/** As `treeMap`, with the dotted path of each tensor. */
export function treeMapWithPath<T>(
  fn: (path: string, tensor: Tensor, ...rest: Tensor[]) => unknown,
  tree: T,
  ...rest: unknown[]
): T {
  const walk = (path: string, node: unknown, others: unknown[]): unknown => {
    if (node instanceof Tensor) return fn(path, node, ...(others as Tensor[]));
    const child = (key: string | number, value: unknown) =>
      walk(
        path === "" ? `${key}` : `${path}.${key}`,
        value,
        others.map((other) => (other as Record<string | number, unknown>)[key]),
      );
    if (Array.isArray(node)) return node.map((value, i) => child(i, value));
    if (isBranch(node)) return Object.fromEntries(Object.entries(node).map(([key, value]) => [key, child(key, value)]));
    return node;
  };
  return walk("", tree, rest) as T;
}

/** Dotted paths and tensors, in order: `{a: [x]}` → `[["a.0", x]]`. */
export function treeFlatten(tree: unknown): [string, Tensor][] {
  const flat: [string, Tensor][] = [];
  treeMapWithPath((path, tensor) => {
    flat.push([path, tensor]);
    return tensor;
  }, tree);
  return flat;
}

/** The inverse of `treeFlatten`: a level whose keys are 0, 1, 2… is an array. */
export function treeUnflatten(entries: Iterable<readonly [string, Tensor]>): Tree {
  const root: Record<string, unknown> = Object.create(null);
  for (const [path, tensor] of entries) {
    if (path === "") return tensor;
    const keys = path.split(".");
    let node = root;
    for (const key of keys.slice(0, -1)) {
      node[key] ??= Object.create(null);
      node = node[key] as Record<string, unknown>;
    }
    node[keys.at(-1)!] = tensor;
  }
  const close = (node: unknown): Tree => {
    if (node instanceof Tensor) return node;
    const entriesHere = Object.entries(node as Record<string, unknown>);
    const list = entriesHere.length > 0 && entriesHere.every(([key]) => /^\d+$/.test(key));
    if (!list) return Object.fromEntries(entriesHere.map(([key, value]) => [key, close(value)]));
    return entriesHere.sort(([a], [b]) => Number(a) - Number(b)).map(([, value]) => close(value));
  };
  return close(root);
}
