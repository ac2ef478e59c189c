/** What all optimizers share: the count of steps, the learning rate, and what is remembered of each parameter. */
import type { Tensor } from "../mlx";
import * as mx from "../mlx";

/** A learning rate, or one by step (the first is 0). */
export type LearningRate = number | ((step: number) => number);

/** What an optimizer remembers of one parameter, by name. */
export type Memory = Readonly<Record<string, Tensor>>;

/** What all parameters have in common in one update; float32 scalars. */
export interface Moment {
  rate: Tensor;
  /** How many updates there were, this one included. */
  step: Tensor;
}

export abstract class Optimizer {
  /** How many updates were made. */
  step = 0;
  private readonly memories = new Map<string, Memory>();
  private readonly changes: mx.Compiled<
    (
      parameters: readonly Tensor[],
      gradients: readonly Tensor[],
      memories: readonly Memory[],
      moment: Moment,
    ) => [Tensor, Memory][]
  >;

  /** Whether its rule treats each number by itself, so that parameters may be put together to one row. */
  readonly isElementwise: boolean = false;

  constructor(readonly learningRate: LearningRate) {
    // Fused on the GPU: else each parameter would cost a kernel for every sum and product of the rule.
    this.changes = mx.compile((parameters, gradients, memories, moment) =>
      parameters.map((parameter, i) => this.change(parameter, gradients[i]!, memories[i]!, moment)),
    );
  }

  /** The memory of a parameter before its first update. */
  protected abstract begin(parameter: Tensor): Memory;

  /** The rule: a parameter's new value, and its new memory: other tensors under the same names. */
  protected abstract change(parameter: Tensor, gradient: Tensor, memory: Memory, moment: Moment): [Tensor, Memory];

  get currentRate(): number {
    return typeof this.learningRate === "number" ? this.learningRate : this.learningRate(this.step);
  }

  /** New values of the parameters, by path. Lazy; to be called in a scope, and the results evaluated with `state`. */
  update(parameters: Iterable<readonly [string, Tensor]>, gradients: ReadonlyMap<string, Tensor>): [string, Tensor][] {
    const rate = mx.array(this.currentRate, "float32");
    this.step += 1;
    const changing = [...parameters].filter(([path]) => gradients.has(path));
    const before = changing.map(([path, parameter]) => this.memories.get(path) ?? mx.keep(this.begin(parameter)));
    const changed = this.changes(
      changing.map(([, parameter]) => parameter),
      changing.map(([path]) => gradients.get(path)!),
      before,
      { rate, step: mx.array(this.step, "float32") },
    );
    return changing.map(([path], i) => {
      const [value, memory] = changed[i]!;
      this.memories.set(path, mx.keep(memory));
      mx.release(before[i]!);
      return [path, value];
    });
  }

  /** All that it remembers, for evaluation and saving: `<path>.<name>`. */
  get state(): [string, Tensor][] {
    return [...this.memories].flatMap(([path, memory]) =>
      Object.entries(memory).map(([name, tensor]): [string, Tensor] => [`${path}.${name}`, tensor]),
    );
  }

  /** Takes over what `state` gave in another run, to go on after `step` updates. The tensors are kept. */
  load(state: Iterable<readonly [string, Tensor]>): void {
    this.dispose();
    const memories = new Map<string, Record<string, Tensor>>();
    for (const [name, tensor] of state) {
      const dot = name.lastIndexOf(".");
      const path = name.slice(0, dot);
      const memory = memories.get(path) ?? {};
      memory[name.slice(dot + 1)] = tensor;
      memories.set(path, memory);
    }
    for (const [path, memory] of memories) this.memories.set(path, mx.keep(memory));
  }

  dispose(): void {
    for (const memory of this.memories.values()) mx.release(memory);
    this.memories.clear();
    this.changes.dispose();
  }
}

/** Root mean square of all values. */
export const rms = (x: Tensor): Tensor => x.square().mean().sqrt();
