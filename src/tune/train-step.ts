/** One step of training: loss, gradients, and at every so many steps new parameters. */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import type { Optimizer } from "../optim";
import { meanOverRanks, ownRows } from "./across-ranks";
import { trainableParameters } from "./linear-to-lora";
import { defaultLoss } from "./loss";
import { type DeviceBatch, type TokenBatch, toDevice } from "./token-batch";

export interface StepResult {
  loss: number;
  /** How many tokens the loss is the mean of. */
  tokens: number;
}

interface Outcome {
  loss: Tensor;
  count: Tensor;
  gradients: Tensor[];
}

export class TrainStep {
  /** Sums of gradients since the last update, by path; kept. */
  gradients: Map<string, Tensor> | null = null;
  private readonly paths: readonly string[];
  /** What is trained, as of the last step: walking a model for it takes as long as a small step on a GPU. */
  private trained: [path: string, tensor: Tensor][] | null = null;
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
    this.paths = trainableParameters(model).map(([path]) => path);
    const trained = new Set(this.paths);
    const others = model.namedParameters().filter(([path]) => !trained.has(path));
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
    const [[loss, count], gradients] = mx.valueAndGrad(lossOf)(parameters) as [[Tensor, Tensor], Tensor[]];
    const all = meanOverRanks({ loss, count, gradients }, this.group);
    return { ...all, gradients: earlier ? all.gradients.map((x, i) => x.add(earlier[i]!)) : all.gradients };
  }

  /**
   * Runs the step and waits for it.
   * @param number of the step, from 1
   * @throws UserError where the batch has tokens that the model lacks
   */
  run(batch: TokenBatch, number: number): StepResult {
    const updates = number % this.accumulation === 0;
    const [loss, count] = mx.scope(() => {
      this.trained ??= trainableParameters(this.model);
      const parameters = this.trained;
      const earlier = this.gradients && this.paths.map((path) => this.gradients!.get(path)!);
      const outcome = this.outcome(
        parameters.map(([, tensor]) => tensor),
        toDevice(ownRows(batch, this.group), this.model.vocabSize),
        earlier,
      );
      const summed = new Map(this.named(outcome.gradients));
      this.setGradients(updates ? null : summed);
      // With other ranks nothing of the update can begin ahead of all gradients: a GPU computes these while the host writes down the update.
      if (this.group) mx.asyncEval(outcome);
      if (updates) {
        this.trained = this.optimizer.update(parameters, this.means(summed));
        this.model.update(this.trained);
      }
      return [outcome.loss, outcome.count];
    });
    mx.eval(loss, count, this.trained, this.optimizer.state, this.gradients, mx.random.state.get());
    const result = { loss: loss!.item(), tokens: count!.item() };
    loss!.dispose();
    count!.dispose();
    return result;
  }

  /** Takes the sums over from another run, or drops them. */
  setGradients(sums: Map<string, Tensor> | null): void {
    if (sums) mx.keep(sums);
    if (this.gradients) mx.release(this.gradients);
    this.gradients = sums;
  }

  private means(sums: ReadonlyMap<string, Tensor>): ReadonlyMap<string, Tensor> {
    if (this.accumulation === 1) return sums;
    return new Map([...sums].map(([path, sum]) => [path, sum.divide(this.accumulation)]));
  }

  dispose(): void {
    this.setGradients(null);
    this.outcome.dispose();
  }
}
