/** An answer that all processes make, on the first of them: in turns, so that others go on meanwhile. */
import type { Step } from "../stepper";
import { partWaysUnlessShared } from "./lost";
import { mostSteps, tellStep } from "./orders";
import { inTurn, turnsAsked } from "./turns";

let answers = 0;

export class LeadingAnswer {
  readonly #number = answers++;
  /** Steps that have been made and not been read. */
  readonly #made: Step[] = [];
  #steps: AsyncGenerator<Step, void, void> | null = null;
  #isOver = false;
  #failure: { error: unknown } | null = null;
  #isAtWork = false;
  /** How many turns had been asked for when the last one began. */
  #before = 0;
  /** Settles with each step and at each end of a turn. */
  #news = Promise.withResolvers<void>();

  /**
   * @param model its number
   * @param begin tells the others of the answer, which has a number; null where nobody wants it any more
   */
  constructor(
    private readonly model: number,
    private readonly begin: (answer: number) => AsyncGenerator<Step, void, void> | null,
  ) {}

  /** Each step as soon as it is made. @throws what a step throws, behind those before it */
  async *steps(): AsyncGenerator<Step, void, void> {
    while (true) {
      const step = this.#made.shift();
      if (step) yield step;
      else if (this.#failure) throw this.#failure.error;
      else if (this.#isOver) return;
      else {
        if (!this.#isAtWork) void this.#work();
        await this.#news.promise;
      }
    }
  }

  /** Makes the steps that are left, for nobody. */
  async finish(): Promise<void> {
    while (this.#isAtWork) await this.#news.promise;
    while (!this.#isOver && !this.#failure) await this.#work();
    for (const { logprobs } of this.#made) logprobs?.dispose();
  }

  async #work(): Promise<void> {
    this.#isAtWork = true;
    try {
      await inTurn(() => this.#turn());
    } catch (error) {
      partWaysUnlessShared(error);
      this.#failure = { error };
    } finally {
      this.#isAtWork = false;
      this.#tellNews();
    }
  }

  /** A step, or several while nobody else asks for turns. */
  async #turn(): Promise<void> {
    const isAlone = turnsAsked() === this.#before + 1;
    this.#before = turnsAsked();
    const count = this.#steps && isAlone ? mostSteps : 1;
    if (this.#steps) tellStep({ type: "next", model: this.model, answer: this.#number, count });
    else this.#steps = this.begin(this.#number);
    this.#isOver = this.#steps === null;
    for (let i = 0; i < count && !this.#isOver; i++) {
      const step = await this.#steps!.next();
      if (step.done) this.#isOver = true;
      else {
        this.#made.push(step.value);
        this.#tellNews();
      }
    }
  }

  #tellNews(): void {
    this.#news.resolve();
    this.#news = Promise.withResolvers<void>();
  }
}
