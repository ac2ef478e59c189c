/** A model as batches run it: each row with the adapter of its sequence. */
import type { Tensor } from "../../mlx";
import type { Cache, LanguageModel } from "../../models";
import type { AdapterPool } from "../../tune/adapter-pool";
import type { Lockstep, StepPlan } from "./lockstep";
import type { Sequence } from "./sequence";

export class BatchModel {
  constructor(
    private readonly model: LanguageModel,
    private readonly adapters: AdapterPool | null = null,
    private readonly lockstep: Lockstep | null = null,
  ) {}

  get vocabSize(): number {
    return this.model.vocabSize;
  }

  /** Tokens (B) that were chosen here → those that all processes go on with */
  agreed(tokens: Tensor): Tensor {
    return this.lockstep?.share(tokens) ?? tokens;
  }

  /** Whether a grammar holds some answers, and whether what was chosen is read before the model goes on: here → on the first process. */
  planned(own: Pick<StepPlan, "isHeld" | "isLate">): Pick<StepPlan, "isHeld" | "isLate"> {
    return this.lockstep?.plan?.() ?? own;
  }

  /** Something that was decided here → what the first process has decided */
  told<T>(own: T): T {
    return this.lockstep ? this.lockstep.told(own) : own;
  }

  /** Token ids (B, T), a row of each sequence → logits (B, T, V) */
  forward(inputs: Tensor, sequences: readonly Sequence[], options: { cache: readonly Cache[] }): Tensor {
    const run = () => this.model.forward(inputs, options);
    return this.adapters
      ? this.adapters.reading(
          sequences.map(({ adapter }) => adapter),
          run,
        )
      : run();
  }
}
