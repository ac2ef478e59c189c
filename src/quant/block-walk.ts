/**
 * A model's blocks one after the other, each on all of the data before the next begins: the memory of one block is enough,
 * and work can be saved between two. The model's own forward pass is run around them, with blocks that are done answered
 * by what they gave.
 */
import { breathe } from "../macrotask";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import { intercept, Residual } from "../nn";
import { checkStopped, resumeHint } from "./stopped";

/** Thrown to leave a forward pass. */
const enough = Symbol("enough");

export interface WalkOptions {
  /** Called after each batch. */
  onBatch?: () => void;
  /** What else is to be evaluated after a batch; the next one begins then. */
  alongside?: () => Tensor[];
  signal?: AbortSignal;
}

export class BlockWalk {
  /** For each batch what the latest block gave, (B, T, D); kept. */
  #states: Tensor[] = [];

  /** @param batches token ids, (B, T) each: rows of one length */
  constructor(
    readonly model: LanguageModel,
    readonly batches: readonly (readonly (readonly number[])[])[],
  ) {}

  get states(): readonly Tensor[] {
    return this.#states;
  }

  /** Goes on from saved states, kept, which it takes over. */
  restore(states: Tensor[]): void {
    mx.release(this.#states);
    this.#states = states;
  }

  /** Runs block `index` on what the one before gave. */
  async run(index: number, options: WalkOptions = {}): Promise<void> {
    await this.#pass(options, (tokens, i) => {
      const state = mx.keep(mx.scope(() => this.#resultOf(index, tokens, i)));
      if (this.#states[i]) mx.release(this.#states[i]);
      this.#states[i] = state;
      return state;
    });
  }

  #resultOf(index: number, tokens: Tensor, i: number): Tensor {
    let result: Tensor | null = null;
    const undo = this.model.layers.map((block, at) =>
      intercept(block, (original, args) => {
        if (at < index) return new Residual(this.#states[i]!);
        result = (original(...args) as Residual).value;
        throw enough;
      }),
    );
    try {
      this.model.forward(tokens);
    } catch (error) {
      if (error !== enough) throw error;
    } finally {
      for (const each of undo) each();
    }
    return result!;
  }

  /** Runs what stands around the blocks, on what the last of them gave. Its result is dropped. */
  async runAround(options: WalkOptions): Promise<void> {
    await this.#pass(options, (tokens, i) => {
      const undo = this.model.layers.map((block) => intercept(block, () => new Residual(this.#states[i]!)));
      try {
        this.model.forward(tokens);
      } finally {
        for (const each of undo) each();
      }
      return undefined;
    });
  }

  /** Runs all of the model at once, for one whose blocks do not follow each other simply. Its result is dropped. */
  async runWhole(options: WalkOptions): Promise<void> {
    await this.#pass(options, (tokens) => {
      this.model.forward(tokens);
      return undefined;
    });
  }

  /** One batch after the other. What `forward` gives is evaluated, with what `alongside` has by then. */
  async #pass(
    { onBatch, alongside, signal }: WalkOptions,
    forward: (tokens: Tensor, i: number) => Tensor | undefined,
  ): Promise<void> {
    for (const [i, rows] of this.batches.entries()) {
      checkStopped(signal, resumeHint);
      const result = mx.scope(() => forward(tokensOf(rows), i));
      mx.eval(result, alongside?.());
      onBatch?.();
      await breathe();
    }
    mx.clearCache();
  }

  dispose(): void {
    mx.release(this.#states);
    this.#states = [];
  }
}

const tokensOf = (rows: readonly (readonly number[])[]) =>
  mx.array(rows.flat(), "uint32", [rows.length, rows[0]!.length]);

/**
 * Whether the model's blocks follow each other simply: each is called once, in order, its first argument is what the one
 * before gave, and no other argument depends on that. The blocks themselves are only traced: no weights are read but the
 * embedding's.
 */
export function blocksFollow(model: LanguageModel): boolean {
  const row = [[0, 1, 2, 3]];
  try {
    return mx.scope(() => {
      if (!giveStreams(model, tokensOf(row))) return false;
      const [one, two] = [1, 2].map((shift) => argumentsWith(model, tokensOf(row), shift));
      return one !== null && two !== null && sameTensors(one!, two!);
    });
  } catch (error) {
    // A model that another result of its blocks confuses.
    if (error instanceof TypeError || error instanceof mx.MlxError || error instanceof RangeError) return false;
    throw error;
  }
}

/** Whether every block is called once, in order, and gives hidden states. */
function giveStreams(model: LanguageModel, tokens: Tensor): boolean {
  const called: number[] = [];
  let plain = true;
  const undo = model.layers.map((block, i) =>
    intercept(block, (original, args) => {
      const result = original(...args);
      called.push(i);
      // A stream that carries more than hidden states is of a class of its own.
      plain &&= result instanceof Residual && result.constructor === Residual;
      return result;
    }),
  );
  try {
    model.forward(tokens);
  } finally {
    for (const each of undo) each();
  }
  return plain && called.length === model.layers.length && called.every((index, i) => index === i);
}

/** What the blocks get beside their first argument if each adds `shift` to it; null where they do not pass it on. */
function argumentsWith(model: LanguageModel, tokens: Tensor, shift: number): Tensor[] | null {
  const others: Tensor[] = [];
  let before: Tensor | null = null;
  let passedOn = true;
  const undo = model.layers.map((block) =>
    intercept(block, (_, [x, ...rest]) => {
      const given = (x as Residual).value;
      others.push(...mx.treeFlatten(rest).map(([, tensor]) => tensor));
      passedOn &&= before === null || given === before || mx.arrayEqual(given, before).item() === 1;
      before = given.add(shift);
      return new Residual(before);
    }),
  );
  try {
    model.forward(tokens);
  } finally {
    for (const each of undo) each();
  }
  return passedOn ? others : null;
}

const sameTensors = (a: readonly Tensor[], b: readonly Tensor[]) =>
  a.length === b.length && a.every((tensor, i) => mx.arrayEqual(tensor, b[i]!).item() === 1);
