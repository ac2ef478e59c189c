/** A model on a process beside the first one: what is answered with it, and the parts of caches and adapters that are here. */
import { UserError } from "../../errors";
import { broadcastTensor } from "../../mlx/group-messages";
import type { Cache, LanguageModel } from "../../models";
import { greedy, type LogitsProcessor, type Sampler } from "../../sample";
import type { Tokenizer } from "../../text/tokenizer";
import { AdapterPool, type PooledAdapter } from "../../tune/adapter-pool";
import type { WholeLayers } from "../../tune/whole-layers";
import { agreedTokens } from "../agreed-tokens";
import { BatchGenerator, type StepPlan } from "../batch";
import { constrain } from "../constrain";
import { copied, cut, dispose } from "../prefix-store";
import type { Step, Stepper } from "../stepper";
import { loadPart } from "./adapters";
import { forgetAlike } from "./alike";
import type { CacheChange } from "./caches-elsewhere";
import type { DividedCaches } from "./divided-caches";
import { type AnswerWay, type BatchSizes, type Change, everyone, type Order, plainStep, told } from "./orders";

/** A model that is open, with what it needs for answers. */
export interface Followed {
  model: LanguageModel;
  tokenizer: Tokenizer;
  /** Where caches go to files, and come from there. */
  caches?: DividedCaches;
  /** Its layers as they were before it was divided. */
  whole?: WholeLayers;
  /** Answers one after the other, or beside a batch, as the first process does. */
  stepper(way: AnswerWay): Stepper;
  /** Frees the model, and all that is beside it. */
  dispose(): void;
}

type AnswerOrder = Extract<Order, { type: "answer" }>;

/** An answer whose steps are made one at a time. */
interface Answer {
  steps: AsyncGenerator<Step, void, void>;
  /** Gives back what it was begun with. */
  free(): void;
}

/** Stands for a sampler of the first process that drops tokens. */
const dropping: Sampler = (logprobs) => greedy(logprobs);

/** Stands for a logits processor of the first process. */
const unchanged: LogitsProcessor = (_, logits) => logits;

export class FollowedModel {
  readonly #caches: HeldCaches;
  readonly #pool: AdapterPool;
  readonly #adapters = new Map<number, PooledAdapter>();
  readonly #answers = new Map<number, Answer>();
  readonly #steppers = new Map<AnswerWay, Stepper>();
  #batch: FollowingBatch | null = null;

  constructor(private readonly followed: Followed) {
    this.#caches = new HeldCaches(followed.model);
    this.#pool = new AdapterPool(followed.model, undefined, followed.whole);
  }

  get model(): LanguageModel {
    return this.followed.model;
  }

  async adapt(number: number, folder: string): Promise<void> {
    this.#adapters.set(number, await loadPart(this.#pool, folder));
  }

  unadapt(number: number): void {
    this.#pool.unload(this.#adapters.get(number)!);
    this.#adapters.delete(number);
  }

  sideBySide(sizes: BatchSizes): void {
    forgetAlike(this.model);
    const pools = { caches: this.#caches, adapters: this.#adapters, pool: this.#pool };
    this.#batch = new FollowingBatch(this.model, sizes, pools);
  }

  oneByOne(): void {
    forgetAlike(this.model);
  }

  step(order: Extract<Order, { type: "step" }>): void {
    this.#batch!.step(order);
  }

  #change(changes: readonly Change[]): void {
    if (this.#batch) this.#batch.change(changes);
    else for (const change of changes) this.#caches.change(change as CacheChange);
  }

  /** A cache put together: the caller disposes of it. */
  gathered(changes: readonly Change[], cache: number): Cache[] {
    this.#change(changes);
    return this.followed.caches!.gathered(this.#caches.get(cache));
  }

  spread(changes: readonly Change[]): void {
    this.#change(changes);
    this.#caches.add(this.followed.caches!.parts(null));
  }

  async answer({ answer, way, changes, request }: AnswerOrder): Promise<void> {
    this.#change(changes);
    const { form, stopTokens, processors, drops, cache, embeddings, ...rest } = request;
    const { model, tokenizer } = this.followed;
    const inputEmbeddings = embeddings ? broadcastTensor(everyone(), null, embeddings) : undefined;
    const prompt = [...rest.cachedTokens, ...rest.prompt];
    const held = { tokenizer, vocabularySize: model.vocabSize, prompt, tools: form?.tools, takeApart: form?.takeApart };
    const constraint = form && (await constrain(form.format, held));
    const steps = this.#stepper(way).steps({
      ...{ ...rest, constraint, sampler: drops ? dropping : greedy, stopTokens: new Set(stopTokens) },
      ...{ logitsProcessors: new Array<LogitsProcessor>(processors).fill(unchanged), inputEmbeddings },
      cache: cache === null ? undefined : this.#caches.get(cache),
      // What was given is kept, whatever the steps have made of it.
      onEnd: cache === null ? undefined : () => {},
    });
    const free = () => {
      constraint?.dispose();
      inputEmbeddings?.dispose();
    };
    this.#answers.set(answer, { steps, free });
    await this.next(answer, 1);
  }

  async next(number: number, count: number): Promise<void> {
    const { steps, free } = this.#answers.get(number)!;
    let isOver = true;
    try {
      let step = await steps.next();
      for (let made = 1; !step.done; made++) {
        step.value.logprobs?.dispose();
        if (made === count) break;
        step = await steps.next();
      }
      isOver = step.done === true;
    } catch (error) {
      // It is the first process's too, and whoever has asked there hears of it.
      if (!(error instanceof UserError)) throw error;
    } finally {
      if (isOver) {
        this.#answers.delete(number);
        free();
      }
    }
  }

  #stepper(way: AnswerWay): Stepper {
    const stepper = this.#steppers.get(way) ?? this.followed.stepper(way);
    this.#steppers.set(way, stepper);
    return stepper;
  }

  dispose(): void {
    this.#batch?.dispose();
    for (const stepper of this.#steppers.values()) stepper.dispose();
    for (const { free } of this.#answers.values()) free();
    this.#caches.dispose();
    this.#pool.dispose();
    this.followed.dispose();
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

interface Pools {
  caches: HeldCaches;
  adapters: ReadonlyMap<number, PooledAdapter>;
  pool: AdapterPool;
}

class FollowingBatch {
  readonly #generator: BatchGenerator;
  /** What the step under way was begun with. */
  #plan: StepPlan = plainStep;

  constructor(
    model: LanguageModel,
    sizes: BatchSizes,
    private readonly pools: Pools,
  ) {
    const promptPace = (_: unknown, isAnswering: boolean) =>
      this.#plan.pace[isAnswering ? 0 : 1] ?? Number.POSITIVE_INFINITY;
    const lockstep = { plan: () => this.#plan, share: agreedTokens, told };
    this.#generator = new BatchGenerator(model, { ...sizes, promptPace, adapters: pools.pool, lockstep });
  }

  step(order: Extract<Order, { type: "step" }>): void {
    this.change(order.changes);
    this.#plan = order;
    for (const event of this.#generator.step()) {
      if (event.type === "token" && event.cache) this.pools.caches.add(event.cache);
    }
  }

  change(changes: readonly Change[]): void {
    for (const change of changes) this.#change(change);
  }

  #change(change: Change): void {
    const { caches, adapters } = this.pools;
    if (change.type === "join") {
      const { sequence } = change;
      const cache = change.cache === null ? undefined : caches.get(change.cache);
      // One that has been unloaded since was that of a sequence which leaves with the same order.
      const adapter = change.adapter === null ? null : adapters.get(change.adapter);
      this.#generator.add({ ...sequence, cache, adapter });
    } else if (change.type === "leave") this.#generator.remove(change.ids);
    else if (change.type === "extract") caches.add(this.#generator.extract(change.id)!.cache);
    else caches.change(change);
  }

  dispose(): void {
    this.#generator.dispose();
  }
}
