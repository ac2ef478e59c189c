/** The processes beside the first one, which is asked: they do what it says, and draw no tokens. */
import { UserError } from "../../errors";
import { breathe } from "../../macrotask";
import type { Cache, LanguageModel } from "../../models";
import { greedy, type LogitsProcessor, type Sampler } from "../../sample";
import type { Tokenizer } from "../../text/tokenizer";
import { agreedTokens } from "../agreed-tokens";
import { BatchGenerator, type StepPlan } from "../batch";
import { constrain } from "../constrain";
import { hiddenStates } from "../hidden-states";
import { copied, cut, dispose } from "../prefix-store";
import type { Stepper } from "../stepper";
import { forgetAlike } from "./alike";
import type { CacheChange } from "./caches-elsewhere";
import type { DividedCaches } from "./divided-caches";
import { type BatchSizes, type Change, heard, type Order, type ToldRequest, told } from "./orders";

/** A model that is open, with what it needs for answers. */
export interface Follower {
  model: LanguageModel;
  tokenizer: Tokenizer;
  /** Where caches go to files, and come from there. */
  caches?: DividedCaches;
  /** Answers one after the other, as the first process does. */
  stepper(): Stepper;
  /** Frees the model, and all that is beside it. */
  dispose(): void;
}

/** What is wrong with a text is so on all processes: the first one says it. */
function computeStates(model: LanguageModel, tokens: readonly number[]): void {
  try {
    hiddenStates(model, tokens).dispose();
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
  }
}

/** Does what the first process says, until it says that this is the end. */
export async function follow(open: () => Promise<Follower>): Promise<void> {
  let opened: Follower | null = null;
  let way: FollowingBatch | FollowingStepper | null = null;
  const leave = () => {
    way?.dispose();
    way = null;
  };
  const close = () => {
    leave();
    opened?.dispose();
    opened = null;
  };
  try {
    while (true) {
      const order = heard();
      if (order?.type === "end") return;
      if (order?.type === "close") close();
      else if (order?.type === "open") {
        close();
        opened = await open();
      } else if (order?.type === "batch" || order?.type === "alone") {
        leave();
        forgetAlike(opened!.model);
        way = order.type === "batch" ? new FollowingBatch(opened!.model, order) : new FollowingStepper(opened!);
      } else if (order?.type === "states") computeStates(opened!.model, order.tokens);
      else if (order?.type === "gather") {
        way!.change(order.changes);
        dispose(opened!.caches!.gathered(way!.caches.get(order.cache)));
      } else if (order?.type === "spread") {
        way!.change(order.changes);
        way!.caches.add(opened!.caches!.parts(null));
      } else if (order?.type === "answer") await (way as FollowingStepper).answer(order.changes, order.request);
      else (way as FollowingBatch).step(order);
      // What ends this process is heard between two steps.
      await breathe();
    }
  } finally {
    close();
  }
}

/** This process's parts of caches that the first one has, by their numbers. */
class HeldCaches {
  readonly #held = new Map<number, Cache[]>();
  #next = 0;

  constructor(private readonly model: LanguageModel) {}

  add(layers: Cache[]): void {
    this.#held.set(this.#next++, layers);
  }

  get(number: number): Cache[] {
    const found = this.#held.get(number);
    if (!found) throw new Error(`there is no cache ${number} on this rank`);
    return found;
  }

  change(change: CacheChange): void {
    if (change.type === "make") this.add(this.model.makeCache());
    else if (change.type === "copy") this.add(copied(this.get(change.cache))!);
    else if (change.type === "cut") {
      if (!cut(this.get(change.cache), change.count))
        throw new Error("this rank's caches cannot forget as many tokens");
    } else {
      dispose(this.get(change.cache));
      this.#held.delete(change.cache);
    }
  }

  dispose(): void {
    for (const layers of this.#held.values()) dispose(layers);
    this.#held.clear();
  }
}

type StepOrder = Extract<Order, { type: "step" }>;

const plainStep: StepPlan = { isHeld: false, isLate: false, pace: [null, null] };

class FollowingBatch {
  readonly #generator: BatchGenerator;
  readonly caches: HeldCaches;
  /** What the step under way was begun with. */
  #plan: StepPlan = plainStep;

  constructor(model: LanguageModel, sizes: BatchSizes) {
    this.caches = new HeldCaches(model);
    const promptPace = (_: unknown, isAnswering: boolean) =>
      this.#plan.pace[isAnswering ? 0 : 1] ?? Number.POSITIVE_INFINITY;
    const lockstep = { plan: () => this.#plan, share: agreedTokens, told };
    this.#generator = new BatchGenerator(model, { ...sizes, promptPace, lockstep });
  }

  step(order: StepOrder | null): void {
    this.change(order?.changes ?? []);
    this.#plan = order ?? plainStep;
    for (const event of this.#generator.step()) {
      if (event.type === "token" && event.cache) this.caches.add(event.cache);
    }
  }

  change(changes: readonly Change[]): void {
    for (const change of changes) this.#change(change);
  }

  #change(change: Change): void {
    if (change.type === "join") {
      const { sequence, cache } = change;
      this.#generator.add({ ...sequence, cache: cache === null ? undefined : this.caches.get(cache) });
    } else if (change.type === "leave") this.#generator.remove(change.ids);
    else if (change.type === "extract") this.caches.add(this.#generator.extract(change.id)!.cache);
    else this.caches.change(change);
  }

  dispose(): void {
    this.#generator.dispose();
    this.caches.dispose();
  }
}

/** Stands for a sampler of the first process that drops tokens. */
const dropping: Sampler = (logprobs) => greedy(logprobs);

/** Stands for a logits processor of the first process. */
const unchanged: LogitsProcessor = (_, logits) => logits;

class FollowingStepper {
  readonly #stepper: Stepper;
  readonly caches: HeldCaches;

  constructor(private readonly follower: Follower) {
    this.#stepper = follower.stepper();
    this.caches = new HeldCaches(follower.model);
  }

  change(changes: readonly Change[]): void {
    for (const change of changes) this.caches.change(change as CacheChange);
  }

  async answer(changes: readonly Change[], request: ToldRequest): Promise<void> {
    this.change(changes);
    const { form, stopTokens, processors, drops, cache, ...rest } = request;
    const { model, tokenizer } = this.follower;
    const prompt = [...rest.cachedTokens, ...rest.prompt];
    const held = { tokenizer, vocabularySize: model.vocabSize, prompt, tools: form?.tools, takeApart: form?.takeApart };
    const constraint = form && (await constrain(form.format, held));
    try {
      const steps = this.#stepper.steps({
        ...{ ...rest, constraint, sampler: drops ? dropping : greedy, stopTokens: new Set(stopTokens) },
        logitsProcessors: new Array<LogitsProcessor>(processors).fill(unchanged),
        cache: cache === null ? undefined : this.caches.get(cache),
        // What was given is kept, whatever the steps have made of it.
        onEnd: cache === null ? undefined : () => {},
      });
      for await (const { logprobs } of steps) logprobs?.dispose();
    } catch (error) {
      // It is the first process's too, and whoever has asked there hears of it.
      if (!(error instanceof UserError)) throw error;
    } finally {
      constraint?.dispose();
    }
  }

  dispose(): void {
    this.#stepper.dispose();
    this.caches.dispose();
  }
}
