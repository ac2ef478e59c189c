/** A model that is loaded and answers. */
import type { OpenedModel } from "../../generate/open-model";
import { PrefixStore } from "../../generate/prefix-store";
import * as mx from "../../mlx";
import type { LanguageModel } from "../../models";
import { makeSampler, type Sampler, type SamplerOptions } from "../../sample";
import type { Tokenizer } from "../../text/tokenizer";
import type { MemoryBudget } from "../engine/memory-budget";
import { Scheduler } from "../engine/scheduler";
import type { EngineSettings } from "../settings";

export interface ServedModelOptions {
  /** What the operator calls it. */
  name: string;
  budget: MemoryBudget;
  settings: EngineSettings;
  draft?: OpenedModel;
}

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

  readonly prefixes: PrefixStore;
  readonly #samplers = new Map<string, Sampler>();

  constructor(
    opened: OpenedModel,
    private readonly options: ServedModelOptions,
  ) {
    const { name, budget, settings, draft } = options;
    this.name = name;
    this.model = opened.model;
    this.tokenizer = opened.tokenizer;
    this.config = opened.config;
    this.folder = opened.folder;
    this.contextLength = opened.contextLength;
    this.nbytes = bytesOf(opened.model) + (draft ? bytesOf(draft.model) : 0);
    budget.holdWeights(this, this.nbytes);
    const { promptCacheSize: maxEntries, promptCacheBytes: maxBytes } = settings;
    this.prefixes = new PrefixStore(() => opened.model.makeCache(), { maxEntries, maxBytes });
    this.scheduler = new Scheduler(opened.model, {
      ...settings,
      budget,
      draft: draft && { model: draft.model, tokens: settings.numDraftTokens },
    });
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

  dispose(): void {
    this.scheduler.dispose();
    this.prefixes.clear();
    this.options.budget.holdWeights(this, 0);
    this.model.dispose();
    this.options.draft?.model.dispose();
    mx.clearCache();
  }
}

function bytesOf(model: LanguageModel): number {
  return model.namedParameters?.().reduce((sum, [, tensor]) => sum + tensor.nbytes, 0) ?? 0;
}
