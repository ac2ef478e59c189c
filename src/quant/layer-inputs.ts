/** What the layers of a block are given when samples run through it. */
import { breathe } from "../macrotask";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import { type Cache, type DecoderLayer, intercept, type Mask, type Module, Residual } from "../nn";

/** A layer's input over all samples. Layers with the same input share it. */
export interface Captured {
  /** (rows, …, K); kept */
  x: Tensor;
  /** Which experts take the rows, for layers of experts; kept. */
  indices: Tensor | null;
}

/** So many tokens run at a time. */
const tokensAtATime = 2 ** 14;

/** How many of the first axis run at a time. */
const rowsAtATime = (x: Tensor) => Math.max(1, Math.floor((tokensAtATime * x.dim(0) * x.dim(-1)) / x.size));

/**
 * What `run` gives for all rows, a batch of them at a time: concatenated and kept, or handed batch by batch to `take`,
 * which is not to hold on to it.
 */
export async function runInBatches(
  captured: Captured,
  run: (x: Tensor, indices: Tensor | null) => Tensor,
): Promise<Tensor>;
export async function runInBatches(
  captured: Captured,
  run: (x: Tensor, indices: Tensor | null) => Tensor,
  take: (part: Tensor) => void,
): Promise<null>;
export async function runInBatches(
  { x, indices }: Captured,
  run: (x: Tensor, indices: Tensor | null) => Tensor,
  take?: (part: Tensor) => void,
): Promise<Tensor | null> {
  const parts: Tensor[] = [];
  const step = rowsAtATime(x);
  try {
    for (let row = 0; row < x.dim(0); row += step) {
      const rows = mx.slice(row, row + step);
      const part = mx.keep(mx.scope(() => run(x.at(rows), indices?.at(rows) ?? null)));
      parts.push(part);
      mx.eval(part);
      if (take) {
        take(part);
        mx.release(parts.pop());
      }
      await breathe();
    }
    if (take) return null;
    if (parts.length === 1) return mx.keep(parts[0]!);
    const whole = mx.keep(mx.scope(() => mx.concatenate(parts)));
    mx.eval(whole);
    return whole;
  } finally {
    mx.release(parts);
  }
}

/** What the blocks are given at their first: hidden states (N, T, D), kept, and the mask of each. */
export interface BlockInputs {
  x: Tensor;
  masks: readonly Mask[];
}

/**
 * The hidden states that the model's first block gets for token ids (N, T), and each block's mask. Its caller releases them.
 */
export async function blockInputs(model: LanguageModel, tokens: Tensor): Promise<BlockInputs> {
  const columns = mx.keep(mx.scope(() => tokens.expandDims(-1)));
  const masks: Mask[] = [];
  const undo: (() => void)[] = [];
  let first: Tensor | null = null;
  try {
    for (const [i, block] of model.layers.entries()) {
      undo.push(
        intercept(block, (_, [x, mask]) => {
          if (i === 0) first = (x as Residual).value;
          if (masks.length === i) masks.push(mask instanceof mx.Tensor ? mx.keep(mask) : (mask as Mask));
          return x;
        }),
      );
    }
    const x = await runInBatches({ x: columns, indices: null }, (batch) => {
      // What follows the blocks is never computed.
      model.forward(batch.squeeze(-1));
      return first!;
    });
    return { x, masks };
  } finally {
    for (const each of undo) each();
    mx.release(columns);
  }
}

/** A block's result on hidden states (N, T, D). */
export function blockOutput(block: DecoderLayer<Cache>, x: Tensor, mask: Mask): Tensor {
  return block.forward(new Residual(x), mask).value;
}

/** The parts of all batches as one, evaluated and kept; they are released. */
function joined(parts: readonly Captured[]): Captured {
  const indices = parts.flatMap((part) => part.indices ?? []);
  const whole = mx.keep(
    mx.scope(() => ({
      x: mx.concatenate(parts.map(({ x }) => x)),
      indices: indices.length > 0 ? mx.concatenate(indices) : null,
    })),
  );
  mx.eval(whole);
  mx.release(parts);
  return whole;
}

/** The inputs of some layers of a block, by layer. */
export class LayerInputs {
  readonly #captured = new Map<Module, Captured>();

  /**
   * Runs the block on hidden states (N, T, D) and remembers what the layers are given. Returns its output, kept, and the
   * inputs.
   */
  static async of(
    block: DecoderLayer<Cache>,
    layers: readonly Module[],
    x: Tensor,
    mask: Mask,
  ): Promise<{ output: Tensor; inputs: LayerInputs }> {
    const inputs = new LayerInputs();
    // For each batch: the distinct inputs, and which of them each layer had.
    const batches: Captured[][] = [];
    const places = new Map<Module, number>();
    const undo = layers.map((layer) =>
      intercept(layer, (original, args) => {
        const [given, indices] = args as [Tensor, unknown];
        const batch = batches.at(-1)!;
        let place = batch.findIndex((one) => one.x === given);
        if (place < 0) {
          place = batch.length;
          batch.push(mx.keep({ x: given, indices: indices instanceof mx.Tensor ? indices : null }));
        }
        places.set(layer, place);
        return original(...args);
      }),
    );
    try {
      const output = await runInBatches({ x, indices: null }, (rows) => {
        batches.push([]);
        const out = blockOutput(block, rows, mask);
        mx.eval(out, batches.at(-1)!);
        return out;
      });
      const whole: Captured[] = [];
      while (batches[0]!.length > 0) whole.push(joined(batches.map((batch) => batch.shift()!)));
      for (const [layer, place] of places) inputs.#captured.set(layer, whole[place]!);
      return { output, inputs };
    } finally {
      for (const each of undo) each();
      mx.release(batches);
    }
  }

  /** @throws Error for a layer that took no part */
  get(layer: Module): Captured {
    const captured = this.#captured.get(layer);
    if (!captured) throw new Error(`nothing was captured of a ${layer.constructor.name}`);
    return captured;
  }

  /** The smallest of what the layers got: experts get the same rows as others beside them, once for each use. */
  smallest(layers: readonly Module[]): Captured {
    const all = layers.flatMap((layer) => this.#captured.get(layer) ?? []);
    return all.reduce((least, one) => (one.x.size < least.x.size ? one : least));
  }

  /** Divides the inputs of the layers by factors (K). */
  divide(layers: readonly Module[], scales: Tensor): void {
    for (const captured of new Set(layers.flatMap((layer) => this.#captured.get(layer) ?? []))) {
      const divided = mx.keep(mx.scope(() => captured.x.divide(scales)));
      mx.eval(divided);
      mx.release(captured.x);
      captured.x = divided;
    }
  }

  dispose(): void {
    for (const captured of new Set(this.#captured.values())) mx.release(captured);
    this.#captured.clear();
  }
}
