/** One step of training: loss, gradients, and at every so many steps new parameters. */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import type { Optimizer } from "../optim";
import { meanOverRanks, type Outcome, ownRows } from "./across-ranks";
import { trainableParameters } from "./linear-to-lora";
import { defaultLoss } from "./loss";
import { ParameterRow } from "./parameter-row";
import { type DeviceBatch, type TokenBatch, toDevice } from "./token-batch";
import type { TrainingState } from "./training-state";

export interface StepResult {
  loss: number;
  /** How many tokens the loss is the mean of. */
  tokens: number;
}

/** A step that is described and not computed. */
interface Described {
  batch: TokenBatch;
  outcome: Outcome;
  /** The random generator's key before it. */
  random: Tensor;
}

/** What goes on with a training beside its parameters, by path. */
export interface StepState extends Pick<TrainingState, "gradients" | "random"> {
  optimizer: ReadonlyMap<string, Tensor>;
  dispose(): void;
}

export class TrainStep {
  /** Sums of gradients since the last update, by path; kept. */
  private gradients: Map<string, Tensor> | null = null;
  private readonly paths: readonly string[];
  /** What gradients are summed by: a path each, or the row's. */
  private readonly names: readonly string[];
  /** How parameters and gradients lie side by side, where they do. */
  private readonly row: ParameterRow | null;
  /** The parameters as of the last step, in a row; kept. */
  private joined: Tensor | null = null;
  /** What is trained, as of the last step: walking a model for it takes as long as a small step on a GPU. */
  private trained: [path: string, tensor: Tensor][] | null = null;
  /** The next step; its tensors are kept. */
  private next: Described | null = null;
  private readonly outcome: mx.Compiled<
    (parameters: Tensor[], batch: DeviceBatch, earlier: Tensor[] | null) => Outcome
  >;

  /** @param group the processes that each have other rows of the batch @param accumulation after how many steps parameters are updated, by the mean of the gradients */
  constructor(
    private readonly model: LanguageModel,
    private readonly optimizer: Optimizer,
    private readonly accumulation: number,
    private readonly group: mx.distributed.Group | null = null,
  ) {
    const parameters = trainableParameters(model);
    this.paths = parameters.map(([path]) => path);
    const trained = new Set(this.paths);
    const others = model.namedParameters().filter(([path]) => !trained.has(path));
    this.row = ParameterRow.fits(parameters, others, optimizer) ? new ParameterRow(parameters) : null;
    this.names = this.row ? [ParameterRow.path] : this.paths;
    // A compiled function must get the frozen weights as inputs, or it would hold them for the process's whole life.
    const frozen = {
      get: () => others,
      set: (weights: [string, Tensor][]) => void model.update(weights),
    };
    const { state: random } = mx.random;
    this.outcome = mx.compile((...args) => this.lossAndGradients(...args), {
      inputs: [frozen, random],
      outputs: [random],
    });
  }

  private named(tensors: readonly Tensor[]): [string, Tensor][] {
    return this.paths.map((path, i) => [path, tensors[i]!]);
  }

  private lossAndGradients(parameters: Tensor[], batch: DeviceBatch, earlier: Tensor[] | null): Outcome {
    const lossOf = (replaced: Tensor[]): [Tensor, Tensor] => {
      const before = trainableParameters(this.model);
      this.model.update(this.named(replaced));
      try {
        return defaultLoss(this.model, batch, { differentiated: true });
      } finally {
        this.model.update(before);
      }
    };
    const [[loss, count], each] = mx.valueAndGrad(lossOf)(parameters) as [[Tensor, Tensor], Tensor[]];
    const gradients = this.row ? [this.row.join(each)] : each;
    const all = meanOverRanks({ loss, count, gradients }, this.group);
    return { ...all, gradients: earlier ? all.gradients.map((x, i) => x.add(earlier[i]!)) : all.gradients };
  }

  /**
   * Runs the step and waits for it.
   * @param number of the step, from 1
   * @param following the batch of the step behind it, if there is one: it is described while a device computes this one
   * @throws UserError where the batch has tokens that the model lacks
   */
  run(batch: TokenBatch, number: number, following: TokenBatch | null = null): StepResult {
    const updates = number % this.accumulation === 0;
    const [loss, count] = mx.scope(() => {
      const outcome = this.taken(batch);
      const parameters = this.parameters();
      const summed = new Map(this.names.map((name, i) => [name, outcome.gradients[i]!]));
      this.setGradients(updates ? null : summed);
      // In a row, or with other ranks, an update needs all gradients: a GPU computes these while the host describes the update.
      if (this.row || this.group) mx.asyncEval(outcome);
      if (updates) {
        this.trained = this.changed(parameters, this.means(summed));
        this.model.update(this.trained);
      }
      return [outcome.loss, outcome.count] as const;
    });
    const { trained, joined, optimizer, gradients } = this;
    const all = [loss, count, trained, joined, optimizer.state, gradients, mx.random.state.get()];
    mx.asyncEval(all);
    if (following) this.describe(following);
    mx.eval(all);
    const result = { loss: loss.item(), tokens: count.item() };
    loss.dispose();
    count.dispose();
    return result;
  }

  private parameters(): [path: string, tensor: Tensor][] {
    this.trained ??= trainableParameters(this.model);
    return this.trained;
  }

  /** Loss and gradients of a batch, lazily; to be called in a scope. */
  private outcomeOf(batch: TokenBatch): Outcome {
    return this.outcome(
      this.parameters().map(([, tensor]) => tensor),
      toDevice(ownRows(batch, this.group), this.model.vocabSize),
      this.gradients && this.names.map((name) => this.gradients!.get(name)!),
    );
  }

  /** Describes the next step. That takes a host 9 ms where a GPU computes one in 140. */
  private describe(batch: TokenBatch): void {
    const random = mx.keep(mx.random.state.get());
    try {
      const outcome = mx.scope(() => mx.keep(this.outcomeOf(batch)));
      this.next = { batch, outcome, random };
    } catch {
      // It fails again in its own step, which says so.
      mx.random.state.set(random);
      mx.release(random);
    }
  }

  /** The outcome of a batch, as described before or now; to be called in a scope. */
  private taken(batch: TokenBatch): Outcome {
    const { next } = this;
    if (next?.batch !== batch) {
      this.forget();
      return this.outcomeOf(batch);
    }
    this.next = null;
    mx.release([next.outcome, next.random]);
    return next.outcome;
  }

  /** Forgets the next step: random numbers go on as if it had not been described. */
  private forget(): void {
    if (!this.next) return;
    const { outcome, random } = this.next;
    this.next = null;
    mx.random.state.set(random);
    mx.release([outcome, random]);
  }

  /** The parameters after an update by these gradients, lazily. */
  private changed(parameters: [string, Tensor][], gradients: ReadonlyMap<string, Tensor>): [string, Tensor][] {
    const { row, optimizer } = this;
    if (!row) return optimizer.update(parameters, gradients);
    this.joined ??= mx.keep(row.join(parameters.map(([, tensor]) => tensor)));
    const before = this.joined;
    const [[, after]] = optimizer.update([[ParameterRow.path, before]], gradients) as [[string, Tensor]];
    this.joined = mx.keep(after);
    mx.release(before);
    return row.split(after);
  }

  /** As it is saved, behind the last step that was run; the caller disposes of it. */
  state(): StepState {
    const { row, gradients } = this;
    const { state } = this.optimizer;
    const random = this.next?.random ?? mx.random.state.get();
    if (!row) return { optimizer: new Map(state), gradients, random, dispose() {} };
    const [optimizer, sums] = mx.scope(() =>
      mx.keep([row.splitState(state), gradients && row.split(gradients.get(ParameterRow.path)!)] as const),
    );
    return {
      optimizer: new Map(optimizer),
      gradients: sums && new Map(sums),
      random,
      dispose: () => mx.release([optimizer, sums]),
    };
  }

  /** Goes on as another run was saved, whose tensors it takes over. @throws UserError where some are missing */
  resume(state: Pick<TrainingState, "optimizer" | "gradients" | "random">): void {
    const { row, optimizer } = this;
    const { step, tensors } = state.optimizer;
    const { gradients, random } = state;
    optimizer.step = step;
    mx.random.state.set(random);
    if (!row) {
      optimizer.load(tensors);
      this.setGradients(gradients && new Map(gradients));
      return;
    }
    try {
      mx.scope(() => {
        const memory = row.joinState(tensors);
        const sums = gradients && new Map([[ParameterRow.path, row.joinNamed(gradients)]]);
        optimizer.load(memory);
        this.setGradients(sums);
      });
    } finally {
      for (const tensor of [...tensors.values(), ...(gradients?.values() ?? [])]) tensor.dispose();
    }
  }

  /** Takes these sums, or none, in the place of the last ones. */
  private setGradients(sums: Map<string, Tensor> | null): void {
    if (sums) mx.keep(sums);
    if (this.gradients) mx.release(this.gradients);
    this.gradients = sums;
  }

  private means(sums: ReadonlyMap<string, Tensor>): ReadonlyMap<string, Tensor> {
    if (this.accumulation === 1) return sums;
    return new Map([...sums].map(([path, sum]) => [path, sum.divide(this.accumulation)]));
  }

  dispose(): void {
    this.forget();
    this.setGradients(null);
    if (this.joined) mx.release(this.joined);
    this.joined = null;
    this.outcome.dispose();
  }
}
