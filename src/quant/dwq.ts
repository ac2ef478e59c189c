/**
 * Distilled weight quantization: the scales and biases of a quantized model, and its norms, learn to predict what the
 * original predicts. Packed weights stay as they are.
 */
import { ExitCode, UserError } from "../errors";
import { breathe } from "../macrotask";
import type { Dtype, Tensor } from "../mlx";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import type { Module, Packing } from "../nn";
import type { AdamW } from "../optim";
import { meanOverRanks, ownRows, sumOverRanks } from "../tune/across-ranks";
import { trainableParameters } from "../tune/linear-to-lora";
import type { TokenBatch } from "../tune/token-batch";
import type { Target, TargetSplit } from "./dwq-targets";
import { inputsOf } from "./dwq-targets";
import { klDivergence } from "./kl-divergence";

/** Layers of so many bits have little to gain. */
const enoughBits = 8;

/** Logits are divided by this: what is unlikely counts for more. */
const defaultTemperature = 2;

/** After so many steps the loss is reported. */
const stepsPerReport = 20;

/** After so many steps it is measured on other data. */
const stepsPerValidation = 200;

/** After so many steps the work is saved. */
const stepsPerSave = 50;

/** How far the training got. */
export interface DwqProgress {
  /** Steps done. */
  iteration: number;
  /** Losses on the validation data: before all, and the latest. */
  initial: number | null;
  latest: number | null;
  /** After which step that was. */
  validated: number;
  trainedTokens: number;
  /** Since the last report: the sum of tokens' losses, and their count. */
  pending: { loss: number; tokens: number };
}

export type DwqEvent =
  | { type: "val"; iteration: number; loss: number }
  | {
      type: "train";
      iteration: number;
      loss: number;
      trained_tokens: number;
      tokens_per_second: number;
      /** GB (10⁹ bytes) */
      peak_memory: number;
    };

export interface DwqOptions {
  batches: Record<TargetSplit, () => Iterable<TokenBatch>>;
  /** The processes that each take some rows of every batch. */
  group?: mx.distributed.Group | null;
  /** The original's logits for this rank's rows of a batch; disposed of after use. */
  target: (batch: TokenBatch, index: number, split: TargetSplit) => Promise<Target>;
  /** The dtype of what is trained in a forward pass. */
  dtype: Dtype;
  temperature?: number;
  /** Called with what is to be saved: every so many steps, and as the signal ends the work. */
  save?: (progress: DwqProgress, parameters: ReadonlyMap<string, Tensor>) => Promise<void>;
  /** Where to go on; its tensors are taken over. */
  resume?: { progress: DwqProgress; parameters: ReadonlyMap<string, Tensor> };
  onEvent?: (event: DwqEvent) => void;
  onStep?: (iteration: number, loss: number) => void;
  onValidationBatch?: (done: number) => void;
  signal?: AbortSignal;
}

const isTrained = (module: Module): module is Module & { packing: Packing } => {
  const { packing } = module as { packing?: Packing };
  return packing?.mode === "affine" && packing.bits < enoughBits;
};

/**
 * Has the model train what DWQ trains.
 * @throws UserError where it has no layer to gain from it
 */
export function unfreezeScales(model: LanguageModel): void {
  const layers = model.namedModules().filter(([, module]) => isTrained(module));
  if (layers.length === 0) {
    throw new UserError(
      `the quantized model has no affine layer with fewer than ${enoughBits} bits: there is nothing to learn`,
      {
        hint: "Take a model that is quantized further, or leave out --quantized-model and choose --bits.",
      },
    );
  }
  for (const [, layer] of layers) layer.unfreeze({ keys: ["scales", "biases"] });
}

/** What is trained runs in float32 where the model does, else in bfloat16, whose range is wide enough for gradients. */
export function dwqDtype(model: LanguageModel): Dtype {
  return trainableParameters(model).every(([, { dtype }]) => dtype === "float32") ? "float32" : "bfloat16";
}

interface DeviceBatch {
  tokens: Tensor;
  lengths: Tensor;
}

function toDevice(batch: TokenBatch): DeviceBatch {
  const ends = mx.array(batch.lengths, "int32", [batch.shape[0], 2]).at(":", mx.slice(1));
  return { tokens: inputsOf(batch), lengths: ends };
}

/** Trains what is not frozen of a quantized model, in place. */
export class Distillation {
  /** Parameters in float32, by path; kept. */
  #parameters: Map<string, Tensor>;
  readonly #paths: readonly string[];
  readonly #dtypes: readonly Dtype[];
  readonly #gradients: mx.Compiled<
    (parameters: Tensor[], batch: DeviceBatch, target: Target) => [Tensor, Tensor, Tensor[]]
  >;
  #progress: DwqProgress = {
    ...{ iteration: 0, initial: null, latest: null, validated: -1, trainedTokens: 0 },
    pending: { loss: 0, tokens: 0 },
  };
  #began = performance.now();

  constructor(
    private readonly model: LanguageModel,
    private readonly optimizer: AdamW,
    private readonly options: DwqOptions,
  ) {
    const trained = trainableParameters(model);
    this.#paths = trained.map(([path]) => path);
    this.#dtypes = trained.map(([, { dtype }]) => dtype);
    this.#parameters = mx.keep(
      mx.scope(() => new Map(trained.map(([path, tensor]) => [path, tensor.astype("float32")]))),
    );
    mx.eval(this.#parameters);
    const names = new Set(this.#paths);
    const others = model.namedParameters().filter(([path]) => !names.has(path));
    // A compiled function must get the frozen weights as inputs, or it would hold them for the process's whole life.
    const frozen = {
      get: () => others,
      set: (weights: [string, Tensor][]) => void model.update(weights),
    };
    // Checkpointed blocks carry it along.
    const { state: random } = mx.random;
    this.#gradients = mx.compile(
      (parameters: Tensor[], batch: DeviceBatch, target: Target) => {
        const [[loss, count], gradients] = mx.valueAndGrad((given: Tensor[]) => this.#loss(given, batch, target))(
          parameters,
        ) as [[Tensor, Tensor], Tensor[]];
        const all = meanOverRanks({ loss, count, gradients }, this.options.group ?? null);
        return [all.loss, all.count, all.gradients];
      },
      { inputs: [frozen, random], outputs: [random] },
    );
  }

  /** The mean divergence of a batch's tokens, float32, and how many they are. */
  #loss(
    parameters: readonly Tensor[],
    { tokens, lengths }: DeviceBatch,
    { logits: wanted, indices }: Target,
  ): [Tensor, Tensor] {
    const { model, options } = this;
    const { temperature = defaultTemperature, dtype } = options;
    const before = trainableParameters(model);
    model.update(this.#paths.map((path, i) => [path, parameters[i]!.astype(dtype)]));
    try {
      const all = model.forward(tokens);
      const logits = indices ? all.takeAlongAxis(indices, -1) : all;
      const losses = klDivergence(logits, wanted, { temperature });
      const mask = mx.arange(1, 1 + tokens.dim(1)).less(lengths);
      const count = mask.sum();
      return [losses.multiply(mask).sum().divide(count), count];
    } finally {
      model.update(before);
    }
  }

  /**
   * Goes through the training data once. The model then has what was learned, in the dtypes that it had.
   * @throws UserError where the loss is no number any more, or the signal ends the work: it is saved then
   */
  async run(): Promise<DwqProgress> {
    const { batches, resume, onStep } = this.options;
    if (resume) this.#resume(resume);
    const { iteration, initial, validated } = this.#progress;
    if (initial === null) this.#progress.initial = await this.#validate(0);
    else if (iteration % stepsPerValidation === 0 && validated !== iteration - 1) await this.#validate(iteration - 1);
    this.#began = performance.now();
    let index = 0;
    for (const batch of batches.train()) {
      if (index++ < this.#progress.iteration) continue;
      await this.#stopIfAsked();
      const { loss, tokens } = await this.#step(batch);
      const { pending } = this.#progress;
      pending.loss += loss * tokens;
      pending.tokens += tokens;
      this.#progress.iteration = index;
      onStep?.(index, loss);
      if (index % stepsPerReport === 0) this.#report();
      if (index % stepsPerValidation === 0) await this.#validate(index - 1);
      if (index % stepsPerSave === 0) await this.#save();
      await breathe();
    }
    if (this.#progress.validated !== index - 1) await this.#validate(index - 1);
    mx.scope(() => {
      const values = [...this.#parameters.values()];
      const { dtype } = this.options;
      this.model.update(this.#paths.map((path, i) => [path, values[i]!.astype(dtype).astype(this.#dtypes[i]!)]));
    });
    mx.eval(this.model.parameters());
    return this.#progress;
  }

  async #step(batch: TokenBatch): Promise<{ loss: number; tokens: number }> {
    const { optimizer, options } = this;
    const { iteration } = this.#progress;
    const own = ownRows(batch, options.group ?? null);
    const target = await options.target(batch, iteration, "train");
    try {
      const [loss, count] = mx.scope(() => {
        const values = [...this.#parameters.values()];
        const [loss, count, gradients] = this.#gradients(values, toDevice(own), target);
        const named = new Map(this.#paths.map((path, i) => [path, gradients[i]!]));
        this.#take(new Map(optimizer.update(this.#parameters, named)));
        return [loss, count];
      });
      mx.eval(loss, count, this.#parameters, optimizer.state, mx.random.state.get());
      const result = { loss: loss!.item(), tokens: count!.item() };
      loss!.dispose();
      count!.dispose();
      if (!Number.isFinite(result.loss)) throw this.#diverged(iteration + 1, result.loss);
      return result;
    } finally {
      disposeTarget(target);
    }
  }

  #diverged(step: number, loss: number): UserError {
    return new UserError(`the loss of step ${step} is ${loss}`, {
      hint: "Try a lower --learning-rate. What was saved before is kept; --resume would meet the same step again.",
    });
  }

  #take(parameters: Map<string, Tensor>): void {
    mx.keep(parameters);
    mx.release(this.#parameters);
    this.#parameters = parameters;
  }

  /** The mean divergence on the validation data, by token. */
  async #validate(iteration: number): Promise<number> {
    const { batches, target: targetOf, group = null, onEvent, onValidationBatch } = this.options;
    let total = 0;
    let tokens = 0;
    let index = 0;
    for (const batch of batches.valid()) {
      await this.#stopIfAsked();
      const target = await targetOf(batch, index++, "valid");
      try {
        const results = mx.scope(() =>
          this.#loss([...this.#parameters.values()], toDevice(ownRows(batch, group)), target),
        );
        mx.eval(results);
        const [loss, count] = results.map((tensor) => tensor.item()) as [number, number];
        for (const tensor of results) tensor.dispose();
        total += loss * count;
        tokens += count;
      } finally {
        disposeTarget(target);
      }
      onValidationBatch?.(index);
      await breathe();
    }
    mx.clearCache();
    const [losses, counts] = sumOverRanks([total, tokens], group) as [number, number];
    const loss = losses / counts;
    this.#progress.latest = loss;
    this.#progress.validated = iteration;
    onEvent?.({ type: "val", iteration, loss });
    return loss;
  }

  #report(): void {
    const { pending, iteration } = this.#progress;
    this.#progress.trainedTokens += pending.tokens;
    this.options.onEvent?.({
      type: "train",
      iteration: iteration - 1,
      loss: pending.loss / pending.tokens,
      trained_tokens: this.#progress.trainedTokens,
      tokens_per_second: (pending.tokens * 1000) / (performance.now() - this.#began),
      peak_memory: mx.peakMemory() / 1e9,
    });
    this.#progress.pending = { loss: 0, tokens: 0 };
    this.#began = performance.now();
  }

  async #stopIfAsked(): Promise<void> {
    if (!this.options.signal?.aborted) return;
    const { iteration } = this.#progress;
    const isSaved = iteration > 0 && this.options.save !== undefined;
    if (isSaved) await this.#save();
    throw new UserError(`stopped after ${iteration} steps`, {
      code: ExitCode.interrupted,
      hint: isSaved ? "They are saved. Go on with --resume." : undefined,
    });
  }

  async #save(): Promise<void> {
    await this.options.save?.(structuredClone(this.#progress), this.#parameters);
  }

  #resume({ progress, parameters }: NonNullable<DwqOptions["resume"]>): void {
    this.#progress = structuredClone(progress);
    this.#take(new Map(this.#paths.map((path) => [path, parameters.get(path)!])));
  }

  dispose(): void {
    mx.release(this.#parameters);
    this.#parameters = new Map();
    this.#gradients.dispose();
  }
}

function disposeTarget({ logits, indices }: Target): void {
  logits.dispose();
  indices?.dispose();
}
