/**
 * What is trained as one row of numbers: an optimizer that treats each number by itself changes a row by one operation. One for each of
 * hundreds of adapters takes the host longer than a GPU. Ranks sum their gradients in one message anyway.
 */
import { UserError } from "../errors";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import type { Optimizer } from "../optim";

type Named = [path: string, tensor: Tensor];

/** Each begins at a multiple of so many numbers: a view of the row is aligned as a tensor of its own would be. */
const step = 64;

/** Bytes that a row may have whatever the model has, and the share of the bytes that are not trained. */
const small = 1 << 24;
const share = 1 / 16;

/** As many as one axis may have. */
const mostNumbers = 2 ** 31 - 1;

const padded = (size: number) => Math.ceil(size / step) * step;
const lengthOf = (tensors: readonly Named[]) => tensors.reduce((sum, [, { size }]) => sum + padded(size), 0);
const bytesOf = (tensors: readonly Named[]) => tensors.reduce((sum, [, { nbytes }]) => sum + nbytes, 0);

export class ParameterRow {
  /** What an optimizer knows the row as. */
  static readonly path = "row";
  private readonly places: { path: string; shape: readonly number[]; size: number; start: number }[] = [];

  constructor(parameters: readonly Named[]) {
    let start = 0;
    for (const [path, { shape, size }] of parameters) {
      this.places.push({ path, shape, size, start });
      start += padded(size);
    }
  }

  /**
   * Whether the optimizer may change these as one row: adapters rather than whole layers. Gradients are in memory twice, and new values
   * beside the old ones, which whole layers have no room for.
   * @param others what is not trained
   */
  static fits(parameters: readonly Named[], others: readonly Named[], optimizer: Optimizer): boolean {
    return (
      optimizer.isElementwise &&
      lengthOf(parameters) <= mostNumbers &&
      bytesOf(parameters) <= Math.max(small, bytesOf(others) * share) &&
      parameters.every(([, { dtype }]) => dtype === "float32")
    );
  }

  /** Tensors in the order of the parameters as a row (N), with zeros where the next one begins later. */
  join(tensors: readonly Tensor[]): Tensor {
    const pieces = tensors.flatMap((tensor) => {
      const missing = padded(tensor.size) - tensor.size;
      return missing > 0 ? [tensor.flatten(), mx.zeros([missing], tensor.dtype)] : [tensor.flatten()];
    });
    return mx.concatenate(pieces);
  }

  /** Views of a row (N), by path. */
  split(row: Tensor): Named[] {
    return this.places.map(({ path, shape, size, start }) => [
      path,
      mx.sliceAxis(row, 0, start, start + size).reshape(...shape),
    ]);
  }

  /** What an optimizer remembers of the row, by path, as it would remember it of each parameter. */
  splitState(state: Iterable<readonly [string, Tensor]>): Named[] {
    return [...state].flatMap(([name, memory]) => {
      const ending = name.slice(ParameterRow.path.length);
      return this.split(memory).map(([path, own]): Named => [path + ending, own]);
    });
  }

  /** The same the other way: what it remembered of each parameter, as of the row. @throws UserError where one is missing */
  joinState(tensors: ReadonlyMap<string, Tensor>): Named[] {
    const first = `${this.places[0]!.path}.`;
    const endings = [...tensors.keys()]
      .filter((name) => name.startsWith(first))
      .map((name) => name.slice(first.length - 1));
    return endings.map((ending) => [ParameterRow.path + ending, this.joinNamed(tensors, ending)]);
  }

  /** Tensors by path, or by path and ending, as a row. @throws UserError where one is missing */
  joinNamed(tensors: ReadonlyMap<string, Tensor>, ending = ""): Tensor {
    return this.join(this.places.map(({ path }) => present(tensors, path + ending)));
  }
}

function present(tensors: ReadonlyMap<string, Tensor>, name: string): Tensor {
  const tensor = tensors.get(name);
  if (!tensor) {
    throw new UserError(`the state of this training has no ${name}`, {
      hint: "It was saved with another optimizer or other adapters: start anew, without --resume.",
    });
  }
  return tensor;
}
