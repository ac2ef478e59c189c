/** A model that is loaded and answers. */
import { freeModel } from "../../convert/load";
import type { OpenedModel } from "../../generate/open-model";
import { forgetAlike } from "../../generate/ranks/alike";
import type { CacheMover } from "../../generate/ranks/lead";
import * as mx from "../../mlx";
import type { LanguageModel } from "../../models";
import type { Module } from "../../nn";
import { makeSampler, type Sampler, type SamplerOptions } from "../../sample";
import type { Tokenizer } from "../../text/tokenizer";
import { AdapterPool } from "../../tune/adapter-pool";
import { canShareAdapters } from "../../tune/whole-layers";
import type { MemoryBudget } from "../engine/memory-budget";
import { Scheduler } from "../engine/scheduler";
import { RadixPrefixes } from "../prefixes/radix-prefixes";
import type { EngineSettings } from "../settings";
import { ServedAdapters } from "./served-adapters";

export interface ServedModelOptions {
  /** What the operator calls it. */
  name: string;
  budget: MemoryBudget;
  settings: EngineSettings;
  draft?: OpenedModel;
}

/** The share of the memory that kept prompts take at most. */
const usualShare = 0.25;

/** Tokens that no window holds. */
const long = 1e6;

/** Samplers of so many different settings are kept. */
const mostSamplers = 64;

export class ServedModel {
  readonly name: string;
  readonly model: LanguageModel;
  readonly tokenizer: Tokenizer;
  readonly config: OpenedModel["config"];
  readonly folder: string;
  /** How many tokens fit, where that is known. */
  readonly contextLength: number | null;
  readonly scheduler: Scheduler;
  /** Bytes of its weights, those of a draft model too. */
  readonly nbytes: number;
  /** When it was loaded. */
  readonly since = new Date();

  readonly prefixes: RadixPrefixes;
  /** Whether requests with different adapters are answered side by side. */
  readonly sharesAdapters: boolean;
  /** Adapters that its batch shares. */
  readonly adapters: ServedAdapters;
  readonly #pool: AdapterPool;
  readonly #samplers = new Map<string, Sampler>();

  constructor(
    private readonly opened: OpenedModel,
    private readonly options: ServedModelOptions,
  ) {
    const { name, budget, settings, draft } = options;
    this.name = name;
    this.model = opened.model;
    this.tokenizer = opened.tokenizer;
    this.config = opened.config;
    this.folder = opened.folder;
    this.contextLength = opened.contextLength;
    this.nbytes = [opened.model, opened.draftHead, draft?.model].reduce((sum, part) => sum + bytesOf(part), 0);
    budget.holdWeights(this, this.nbytes);
    const { promptCacheSize: maxEntries, promptCacheBytes: maxBytes = budget.limit * usualShare } = settings;
    this.prefixes = new RadixPrefixes(() => opened.model.makeCache(), {
      ...{ maxEntries, maxBytes },
      onChange: (bytes) => budget.hold(this, bytes),
    });
    this.#pool = new AdapterPool(opened.model, (bytes) => budget.holdWeights(this.#pool, bytes), opened.whole);
    this.adapters = new ServedAdapters(opened.model, this.#pool, this.prefixes);
    this.scheduler = new Scheduler(opened.model, {
      ...settings,
      budget,
      adapters: this.#pool,
      onShort: (bytes) => this.prefixes.release(bytes),
      draft: draftsOf(settings, opened, draft),
    });
    this.sharesAdapters =
      this.scheduler.isBatched && (opened.whole?.readsRowsTogether ?? canShareAdapters(opened.model));
  }

  /** Whether what has been read can be cut back to any length, so that no place in a prompt is better than another. */
  get forgetsAnywhere(): boolean {
    const cache = this.model.makeCache();
    const can = cache.every((layer) => layer.isTrimmable(this.contextLength ?? long));
    for (const layer of cache) layer.dispose();
    return can && forgetAlike(this.model);
  }

  /** Where ranks have parts of caches: what brings them to files and back. */
  get mover(): CacheMover | null {
    const { stepper } = this.scheduler;
    const { caches } = this.opened;
    return caches && "mover" in stepper ? stepper.mover(caches) : null;
  }

  /** One and the same function for the same settings: those who share it are drawn together. */
  async sampler(options: SamplerOptions): Promise<Sampler> {
    const key = JSON.stringify(options);
    let sampler = this.#samplers.get(key);
    if (!sampler) {
      // XTC spares what ends lines and answers.
      const xtcSpecialTokens = options.xtcProbability
        ? [...(await this.tokenizer.encode("\n")), ...this.tokenizer.eosTokenIds]
        : undefined;
      sampler = makeSampler({ ...options, xtcSpecialTokens });
      if (this.#samplers.size >= mostSamplers) this.#samplers.delete(this.#samplers.keys().next().value!);
      this.#samplers.set(key, sampler);
    }
    return sampler;
  }

  /** Of several ranks: in turn. */
  dispose(): void {
    this.scheduler.dispose();
    this.prefixes.clear();
    this.#pool.dispose();
    this.options.budget.holdWeights(this, 0);
    freeModel(this.opened);
    this.options.draft?.model.dispose();
    mx.releaseMemory();
  }
}

/** Who proposes tokens: a draft model, the model's own layers, or the text so far. */
export const draftsOf = (settings: EngineSettings, opened: OpenedModel, draft: OpenedModel | undefined) =>
  draft ? { model: draft.model, tokens: settings.numDraftTokens } : settings.ownDrafts?.(opened.draftHead);

function bytesOf(module: Partial<Pick<Module, "namedParameters">> | undefined): number {
  return module?.namedParameters?.().reduce((sum, [, tensor]) => sum + tensor.nbytes, 0) ?? 0;
}
