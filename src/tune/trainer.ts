/** The training loop: steps, validations, reports, checkpoints. What it prints is the caller's business. */
import { join } from "node:path";
import { UserError } from "../errors";
import { breathe } from "../macrotask";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import { withWiredLimit } from "../models/wired";
import type { Optimizer } from "../optim";
import { anyAborted } from "./across-ranks";
import { weightsName, writeAdapterWeights } from "./adapter-files";
import type { History } from "./curve";
import { setTraining } from "./dropout";
import { checkpointBlocks } from "./gradient-checkpoint";
import { trainableParameters } from "./linear-to-lora";
import { evaluateLoss } from "./loss";
import type { TokenBatch } from "./token-batch";
import { type StepResult, TrainStep } from "./train-step";
import { type Progress, type TrainingState, writeTrainingState } from "./training-state";

export interface TrainingOptions {
  /** The folder that adapters and state are saved to. */
  folder: string;
  iterations: number;
  /** Batches without end. */
  batches: Iterator<TokenBatch>;
  /** Batches of one validation; none where there is no data for it. */
  validation?: () => Iterable<TokenBatch>;
  stepsPerReport: number;
  stepsPerEval: number;
  stepsPerSave: number;
  gradientAccumulation?: number;
  gradientCheckpoint?: boolean;
  /** Bytes of freed memory that the allocator may keep between two steps, where that is more than a step's own peak. */
  clearCacheThreshold?: number;
  /** Called with each event, in order. */
  onEvent?: (event: TrainingEvent) => void;
  /** Called as each step ends, and each batch of a validation. */
  onStep?: (iteration: number, figures: StepFigures) => void;
  onValidationBatch?: () => void;
  /** The processes that train together, of which the first saves. */
  group?: mx.distributed.Group | null;
  /** Ends the training after the current step, with a checkpoint. */
  signal?: AbortSignal;
  /** What must be the same for a training that goes on; written into the state. */
  settings?: Readonly<Record<string, unknown>>;
  /** The state to go on from, whose tensors the training takes over. The model and the optimizer are to be as at its start. */
  resume?: TrainingState;
}

export type TrainingEvent =
  | {
      type: "train";
      iteration: number;
      /** Mean of the steps' losses since the last report. */
      loss: number;
      learning_rate: number;
      iterations_per_second: number;
      tokens_per_second: number;
      trained_tokens: number;
      /** GB (10⁹ bytes) */
      peak_memory: number;
    }
  | {
      type: "val";
      /** How many steps were done before. */
      iteration: number;
      loss: number;
      /** Seconds. */
      time: number;
    }
  | {
      type: "saved";
      iteration: number;
      /** The numbered checkpoint, or the adapters themselves at the end. */
      path: string;
    };

/** Of one step. */
export interface StepFigures {
  loss: number;
  tokens_per_second: number;
  /** GB (10⁹ bytes) */
  peak_memory: number;
}

export interface TrainingEnd {
  iteration: number;
  interrupted: boolean;
  /** From the first step, those of earlier runs that this one went on from among them. */
  history: History;
}

/**
 * Trains the model's unfrozen parameters in place and saves them. The optimizer stays the caller's.
 * @throws UserError where the loss is no number any more, or a batch does not fit the model
 */
export async function train(
  model: LanguageModel,
  optimizer: Optimizer,
  options: TrainingOptions,
): Promise<TrainingEnd> {
  // Ahead of the trainer, which asks for the type of what it trains.
  if (options.resume) model.loadWeights(options.resume.parameters, { strict: false });
  const restoreLimit = withWiredLimit();
  const undo = options.gradientCheckpoint ? checkpointBlocks(model.layers) : () => {};
  const trainer = new Trainer(model, optimizer, options);
  setTraining(model, true);
  try {
    return await trainer.run();
  } finally {
    setTraining(model, false);
    trainer.dispose();
    undo();
    restoreLimit();
  }
}

class Trainer {
  private readonly step: TrainStep;
  private readonly memory = new mx.StepMemory();
  private progress: Progress = {
    iteration: 0,
    validations: [],
    trainedTokens: 0,
    pending: { loss: 0, tokens: 0, steps: 0 },
    history: { train: [], val: [] },
  };
  private rate: number;
  /** Milliseconds that steps took since the last report. */
  private spent = 0;

  constructor(
    private readonly model: LanguageModel,
    private readonly optimizer: Optimizer,
    private readonly options: TrainingOptions,
  ) {
    this.step = new TrainStep(model, optimizer, options.gradientAccumulation ?? 1, options.group);
    this.rate = optimizer.currentRate;
  }

  dispose(): void {
    this.step.dispose();
  }

  async run(): Promise<TrainingEnd> {
    const { iterations, batches, signal, resume, group = null } = this.options;
    if (resume) this.resume(resume);
    let following: TokenBatch | null = null;
    for (let iteration = this.progress.iteration + 1; iteration <= iterations; iteration++) {
      const batch: TokenBatch = following ?? nextOf(batches);
      await this.maybeValidate(iteration);
      if (anyAborted(signal, group)) return this.interrupted();
      following = iteration < iterations ? nextOf(batches) : null;
      const figures = this.runStep(batch, iteration, following);
      this.options.onStep?.(iteration, figures);
      if (iteration % this.options.stepsPerReport === 0 || iteration === iterations) this.report();
      if (iteration % this.options.stepsPerSave === 0) await this.save();
      await breathe();
      if (iteration < iterations && anyAborted(signal, group)) return this.interrupted();
    }
    await this.saveFinal();
    return this.end(false);
  }

  private async interrupted(): Promise<TrainingEnd> {
    if (this.progress.iteration > 0) await this.save();
    return this.end(true);
  }

  private end(interrupted: boolean): TrainingEnd {
    const { iteration, history } = this.progress;
    return { iteration, interrupted, history };
  }

  private async maybeValidate(iteration: number): Promise<void> {
    const { validation, stepsPerEval, iterations, signal, onValidationBatch, group = null } = this.options;
    if (!validation || (iteration !== 1 && iteration % stepsPerEval !== 0 && iteration !== iterations)) return;
    const began = performance.now();
    setTraining(this.model, false);
    const done = new AbortedValidation();
    let loss: number;
    try {
      loss = await evaluateLoss(
        this.model,
        validation(),
        async () => {
          onValidationBatch?.();
          await breathe();
          if (anyAborted(signal, group)) throw done;
        },
        group,
      );
    } catch (error) {
      if (error === done) return;
      throw error;
    } finally {
      setTraining(this.model, true);
    }
    this.progress.validations.push(iteration);
    this.progress.history.val.push([iteration - 1, loss]);
    this.emit({ type: "val", iteration: iteration - 1, loss, time: (performance.now() - began) / 1000 });
  }

  private runStep(batch: TokenBatch, iteration: number, following: TokenBatch | null): StepFigures {
    const began = performance.now();
    const rate = this.optimizer.currentRate;
    const updates = this.optimizer.step;
    const result = this.memory.run(() => this.step.run(batch, iteration, following));
    const { loss, tokens } = result;
    if (!Number.isFinite(loss)) throw this.diverged(result, batch, iteration);
    if (this.optimizer.step > updates) this.rate = rate;
    if (mx.cacheMemory() > this.spareMemory()) mx.clearCache();
    this.progress.iteration = iteration;
    this.progress.pending.loss += loss;
    this.progress.pending.tokens += tokens;
    this.progress.pending.steps += 1;
    const spent = performance.now() - began;
    this.spent += spent;
    return { loss, tokens_per_second: (tokens * 1000) / spent, peak_memory: mx.peakMemory() / 1e9 };
  }

  /**
   * How many bytes of freed memory may wait for the next step: those that were in use at the peak, so that steps do not ask
   * the system for the same memory again and again, and the process does not grow beyond that peak.
   */
  private spareMemory(): number {
    return Math.max(this.options.clearCacheThreshold ?? 0, mx.peakMemory() - mx.activeMemory());
  }

  private report(): void {
    const { progress, rate, spent, options } = this;
    const { loss, tokens, steps } = progress.pending;
    progress.trainedTokens += tokens;
    progress.history.train.push([progress.iteration, loss / steps]);
    this.emit({
      type: "train",
      iteration: progress.iteration,
      loss: loss / steps,
      learning_rate: rate,
      iterations_per_second: (options.stepsPerReport * 1000) / spent,
      tokens_per_second: (tokens * 1000) / spent,
      trained_tokens: progress.trainedTokens,
      peak_memory: mx.peakMemory() / 1e9,
    });
    progress.pending = { loss: 0, tokens: 0, steps: 0 };
    this.spent = 0;
  }

  private emit(event: TrainingEvent): void {
    this.options.onEvent?.(event);
  }

  /** All ranks have the same parameters. */
  private get isSaving(): boolean {
    return (this.options.group?.rank ?? 0) === 0;
  }

  /** The state, the adapters, and a numbered copy of them. */
  private async save(): Promise<void> {
    if (!this.isSaving) return;
    const { folder } = this.options;
    const { iteration } = this.progress;
    await this.saveFinal({ announce: false });
    const path = join(folder, `${String(iteration).padStart(7, "0")}_${weightsName}`);
    await writeAdapterWeights(path, trainableParameters(this.model));
    this.emit({ type: "saved", iteration, path });
  }

  private async saveFinal({ announce = true }: { announce?: boolean } = {}): Promise<void> {
    const { folder, settings = {} } = this.options;
    const parameters = new Map(trainableParameters(this.model));
    this.checkFinite(parameters);
    if (!this.isSaving) return;
    const state = this.step.state();
    try {
      await writeTrainingState(folder, {
        progress: this.progress,
        rate: this.rate,
        settings,
        parameters,
        optimizer: { step: this.optimizer.step, tensors: state.optimizer },
        gradients: state.gradients,
        random: state.random,
      });
    } finally {
      state.dispose();
    }
    const path = join(folder, weightsName);
    await writeAdapterWeights(path, parameters);
    if (announce) this.emit({ type: "saved", iteration: this.progress.iteration, path });
  }

  /** A good checkpoint is not to be replaced by a bad one. */
  private checkFinite(parameters: ReadonlyMap<string, mx.Tensor>): void {
    const bad = mx.scope(() => {
      const finite = [...parameters].map(([name, x]) => [name, mx.isfinite(x).all()] as const);
      mx.eval(finite);
      return finite.find(([, all]) => !all.item())?.[0];
    });
    if (bad === undefined) return;
    throw new UserError(
      `after iteration ${this.progress.iteration}, ${bad} holds numbers that are not finite: nothing was saved`,
      { hint: divergenceHint },
    );
  }

  private diverged({ loss, tokens }: StepResult, { shape, lengths, where }: TokenBatch, iteration: number): UserError {
    const rows = Array.from({ length: shape[0] }, (_, i) => {
      const size = `${lengths[2 * i + 1]} tokens`;
      return where ? `${where(i)} (${size})` : size;
    });
    const saved = this.progress.iteration >= this.options.stepsPerSave ? "The last checkpoint is kept. " : "";
    const batch = `its batch has ${shape[0]} rows: ${rows.join("; ")}`;
    return tokens === 0
      ? new UserError(`no token has a loss in iteration ${iteration}; ${batch}`, {
          hint: `${saved}Prompts fill all of --max-seq-length: raise it, or leave out such rows.`,
        })
      : new UserError(`the loss of iteration ${iteration} is ${loss}; ${batch}`, { hint: saved + divergenceHint });
  }

  /** Takes over the state, and draws the batches that were used already, so that the order of the data goes on. */
  private resume(state: TrainingState): void {
    const { batches, validation } = this.options;
    const { progress } = state;
    for (let iteration = 1; iteration <= progress.iteration; iteration++) {
      nextOf(batches);
      if (progress.validations.includes(iteration)) validation?.()[Symbol.iterator]().next();
    }
    this.progress = structuredClone(progress);
    this.rate = state.rate;
    this.step.resume(state);
  }
}

/** Thrown to leave a validation when the signal asks to end. */
class AbortedValidation extends Error {}

const divergenceHint = "Try a lower --learning-rate, a warm-up, or look at the data.";

function nextOf(batches: Iterator<TokenBatch>): TokenBatch {
  const { value, done } = batches.next();
  if (done) throw new Error("the training batches came to an end");
  return value;
}
