/** Modules: objects whose fields are the parameter tree. Field names are the checkpoint's tensor names, to the letter. */
import { UserError } from "../errors";
import * as mx from "../mlx";
import { Tensor, type Tree } from "../mlx";

/** Named tensors: a map, or [name, tensor] pairs. */
export type Weights = Iterable<readonly [string, Tensor]>;

/** Keeps a tensor for as long as its module lives. For fields: `this.weight = parameter(mx.ones([dims]))`. */
export function parameter(tensor: Tensor): Tensor {
  return mx.keep(tensor);
}

type Part = Tensor | Module;

/** The tensors and modules that a field holds: itself, or the items of its list, with their paths. */
function* partsOf(path: string, value: unknown): Generator<[string, Part]> {
  if (value instanceof Tensor || value instanceof Module) yield [path, value];
  else if (Array.isArray(value)) for (const [i, item] of value.entries()) yield* partsOf(`${path}.${i}`, item);
}

/**
 * A node of the model. Fields that are tensors, modules or lists of them are its parameters; a field whose name begins
 * with "_" is held (and freed) with the module but is no parameter, as in mlx.nn.
 */
export abstract class Module {
  readonly #frozen = new Set<string>();

  *#parts({ hidden = false } = {}): Generator<[string, Part]> {
    for (const [name, value] of Object.entries(this)) {
      if (hidden || !name.startsWith("_")) yield* partsOf(name, value);
    }
  }

  /** The modules right below this one, with their paths: `["layers.0", Block]`. */
  children(): [string, Module][] {
    return [...this.#parts()].filter((part): part is [string, Module] => part[1] instanceof Module);
  }

  /** This module (path "") and all below, parents first. */
  namedModules(): [string, Module][] {
    const below = this.children().flatMap(([path, child]) =>
      child.namedModules().map(([rest, module]): [string, Module] => [join(path, rest), module]),
    );
    return [["", this], ...below];
  }

  /** Every parameter with its path, which is its name in a checkpoint. */
  namedParameters(): [string, Tensor][] {
    return [...this.#parts()].flatMap(([path, part]) =>
      part instanceof Module
        ? part.namedParameters().map(([rest, tensor]): [string, Tensor] => [join(path, rest), tensor])
        : [[path, part] as [string, Tensor]],
    );
  }

  /** The parameters as nested plain objects and lists. */
  parameters(): Tree {
    return this.#tree(() => true);
  }

  /** The parameters that are not frozen, nested likewise. */
  trainableParameters(): Tree {
    return this.#tree((module, name) => !module.#frozen.has(name));
  }

  #tree(wanted: (module: Module, name: string) => boolean): { [name: string]: Tree } {
    const branch = (value: unknown, name: string): Tree => {
      if (value instanceof Module) return value.#tree(wanted);
      if (Array.isArray(value)) return value.map((item) => branch(item, name));
      return value instanceof Tensor && wanted(this, name) ? value : undefined;
    };
    const tree: { [name: string]: Tree } = {};
    for (const [name, value] of Object.entries(this)) {
      if (name.startsWith("_")) continue;
      const found = branch(value, name);
      if (found !== undefined) tree[name] = found;
    }
    return tree;
  }

  /** Excludes parameters from training: all that there are here and below, or the fields with these names. */
  freeze({ keys }: { keys?: readonly string[] } = {}): this {
    for (const [, module] of this.namedModules()) {
      const own = [...module.#parts()].filter(([, part]) => part instanceof Tensor);
      for (const name of keys ?? own.map(([path]) => path.split(".")[0]!)) module.#frozen.add(name);
    }
    return this;
  }

  /** Whether a parameter of this module's own takes part in training. */
  protected trains(name: string): boolean {
    return !this.#frozen.has(name);
  }

  /** The inverse of `freeze`. */
  unfreeze({ keys }: { keys?: readonly string[] } = {}): this {
    for (const [, module] of this.namedModules()) {
      if (keys) for (const name of keys) module.#frozen.delete(name);
      else module.#frozen.clear();
    }
    return this;
  }

  /**
   * Takes new tensors for some parameters, by path or as a tree like `parameters()`. They are kept, the old ones
   * released. @throws Error for a path that is no parameter
   */
  update(weights: Weights | Tree): this {
    const entries = isWeights(weights) ? weights : mx.treeFlatten(weights);
    for (const [path, tensor] of entries) {
      const { holder, key } = this.#place(path);
      const old = holder[key];
      if (!(old instanceof Tensor)) throw new Error(`${this.constructor.name} has no parameter ${path}`);
      holder[key] = mx.keep(tensor);
      mx.release(old);
    }
    return this;
  }

  /** Puts another module (anything with the same `forward`) at a path and returns the one that was there. */
  replace(path: string, module: Module): Module {
    const { holder, key } = this.#place(path);
    const old = holder[key];
    if (!(old instanceof Module)) throw new Error(`${this.constructor.name} has no module ${path}`);
    holder[key] = module;
    return old;
  }

  /** The object or list that holds the last key of a path. */
  #place(path: string): { holder: Record<string, unknown>; key: string } {
    const keys = path.split(".");
    const key = keys.pop()!;
    let holder: unknown = this;
    for (const step of keys) holder = (holder as Record<string, unknown>)[step] ?? {};
    return { holder: holder as Record<string, unknown>, key };
  }

  /**
   * Takes a checkpoint's tensors as parameters. Unless `strict` is false, names must match the model's exactly.
   * @throws UserError that lists what is missing, superfluous or of the wrong shape
   */
  loadWeights(weights: Weights, { strict = true }: { strict?: boolean } = {}): this {
    const given = new Map(weights);
    const known = new Map(this.namedParameters());
    const missing = [...known.keys()].filter((name) => !given.has(name));
    const extra = [...given.keys()].filter((name) => !known.has(name));
    const fitting = [...given].filter(([name]) => known.has(name));
    const wrong = fitting.filter(([name, tensor]) => !sameShape(tensor, known.get(name)!));

    const problems = [
      listing("has a wrong shape", "have wrong shapes", wrong, ([name, tensor]) => {
        return `${name} is ${shapeText(tensor)}, expected ${shapeText(known.get(name)!)}`;
      }),
      ...(strict ? [listing("is missing", "are missing", missing), listing("is unknown", "are unknown", extra)] : []),
    ].filter((problem) => problem !== null);
    if (problems.length > 0) {
      throw new UserError(`the weights do not fit the model: ${problems.join("; ")}`, {
        hint: "Check that config.json and the weights belong together.",
      });
    }
    return this.update(fitting);
  }

  /** Frees every tensor of this module and those below. */
  dispose(): void {
    for (const [, part] of this.#parts({ hidden: true })) {
      if (part instanceof Module) part.dispose();
      else mx.release(part);
    }
  }
}

function isWeights(weights: Weights | Tree): weights is Weights {
  return typeof weights === "object" && weights !== null && Symbol.iterator in weights;
}

function join(path: string, rest: string): string {
  return rest === "" ? path : `${path}.${rest}`;
}

function sameShape(a: Tensor, b: Tensor): boolean {
  return a.ndim === b.ndim && a.shape.every((size, i) => size === b.shape[i]);
}

function shapeText({ shape }: Tensor): string {
  return `(${shape.join(", ")})`;
}

const listed = 3;

/** "4 tensors are missing: a, b, c and 1 more"; null where there are none. */
function listing<T>(one: string, many: string, items: readonly T[], text: (item: T) => string = String): string | null {
  if (items.length === 0) return null;
  const names = items.slice(0, listed).map(text).join(", ");
  const rest = items.length > listed ? ` and ${items.length - listed} more` : "";
  return `${items.length === 1 ? `1 tensor ${one}` : `${items.length} tensors ${many}`}: ${names}${rest}`;
}
