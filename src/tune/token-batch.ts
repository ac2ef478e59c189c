/** A batch of token ids, on the host and on the device. */
import { UserError } from "../errors";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";

/** A sample's place in a row that holds several. */
export interface Placed {
  start: number;
  length: number;
  /** How many of its tokens, at the begin, have no loss. */
  offset: number;
}

/** Rows of token ids, padded with zeros. */
export interface TokenBatch {
  /** (B, T) in row-major order */
  readonly tokens: Int32Array;
  readonly shape: readonly [rows: number, length: number];
  /** (B, 2): how many tokens at a row's begin have no loss, and how many tokens it has. */
  readonly lengths: Int32Array;
  /** Of each row, the samples that it is packed with; each sees itself alone. */
  readonly samples?: readonly (readonly Placed[])[];
  /** Where a row comes from, for a person. */
  readonly where?: (row: number) => string;
}

/** A batch on the device: (B, T) each. */
export interface DeviceBatch {
  /** Token ids, int32. */
  inputs: Tensor;
  /** The tokens behind them, int32. */
  targets: Tensor;
  /** Which of the targets have a loss, bool. */
  counted: Tensor;
  /** Of each token in packed rows its position in its sample and the number of that; int32. */
  packing: { positions: Tensor; segments: Tensor } | null;
}

/**
 * How many tokens the model reads of rows with `length` targets. Attention's backward kernel on CUDA takes whole tiles, and
 * products are faster at round sizes, so rows that lack little of that get a few columns without a loss. They come last:
 * no token sees them.
 */
function readLength(length: number): number {
  const tile = 128;
  const whole = Math.ceil(length / tile) * tile;
  const isNear = whole - length <= length / 32;
  return isNear && mx.usesCuda() ? whole : length;
}

/** @throws UserError for a token id that the model has no embedding for: MLX would read foreign memory */
export function toDevice(batch: TokenBatch, vocabSize: number): DeviceBatch {
  const stray = batch.tokens.find((id) => id < 0 || id >= vocabSize);
  if (stray !== undefined) {
    throw new UserError(`the data has token id ${stray}, but the model has ${vocabSize} tokens`, {
      hint: "The tokenizer does not belong to this model, or the model was made without its added tokens.",
    });
  }
  const { tokens, lengths, samples, shape } = batch;
  const [rows, columns] = shape;
  const length = samples ? columns : readLength(columns - 1);
  const table = (at: (row: number, column: number) => number) =>
    Int32Array.from({ length: rows * length }, (_, i) => at(Math.floor(i / length), i % length));
  const tokenAt = (row: number, column: number) => (column < columns ? tokens[row * columns + column]! : 0);
  const counted = new Uint8Array(rows * length);
  const positions = new Int32Array(rows * length);
  const segments = new Int32Array(rows * length);
  for (let row = 0; row < rows; row++) {
    if (!samples) {
      // As in mlx-lm, the token behind a row's last counts where there is padding.
      const [offset, end] = [lengths[2 * row]!, lengths[2 * row + 1]!];
      counted.fill(1, row * length + Math.max(0, offset - 1), row * length + Math.min(end, columns - 1));
    }
    for (const [i, { start, length: size, offset }] of (samples?.[row] ?? []).entries()) {
      const from = row * length + start;
      counted.fill(1, from + Math.max(0, offset - 1), from + size - 1);
      segments.fill(i + 1, from, from + size);
      for (let t = 0; t < size; t++) positions[from + t] = t;
    }
  }
  const onDevice = (data: Int32Array) => mx.array(data, "int32", [rows, length]);
  // Every layer reads these, and a GPU would do so from the host each time.
  const forLayers = (data: Int32Array) => (mx.usesCuda() ? onDevice(data).add(0) : onDevice(data));
  return {
    inputs: onDevice(table(tokenAt)),
    targets: onDevice(table((row, column) => tokenAt(row, column + 1))),
    counted: mx.array(counted, "uint8", [rows, length]).astype("bool"),
    packing: samples ? { positions: forLayers(positions), segments: forLayers(segments) } : null,
  };
}
