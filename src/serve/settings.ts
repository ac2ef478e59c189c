/** What the server was started with: the defaults of requests, and how it runs. */
import type { Drafts } from "../generate/draft-stepper";
import type { KvQuantizationOptions } from "../generate/kv-quantization";
import type { DraftHead } from "../models";

/** What a request gets where it says nothing. */
export interface RequestDefaults {
  temp: number;
  topP: number;
  topK: number;
  minP: number;
  maxTokens: number;
  /** Variables of the chat template. */
  templateVariables: Record<string, unknown>;
}

export interface EngineSettings {
  decodeConcurrency: number;
  promptConcurrency: number;
  prefillStepSize?: number;
  /** How many requests may wait for a place. */
  maxQueue: number;
  kvQuantization?: KvQuantizationOptions;
  /** How many tokens a draft model proposes at a time. */
  numDraftTokens: number;
  /** Who drafts beside a draft model: a model's own draft layers, where it has any, or the text so far. */
  ownDrafts?: (head: DraftHead | undefined) => Drafts | null;
  /** How many prompts are kept, and how many bytes they take at most. */
  promptCacheSize: number;
  promptCacheBytes?: number;
}

export const requestDefaults: RequestDefaults = {
  temp: 0,
  topP: 1,
  topK: 0,
  minP: 0,
  maxTokens: 512,
  templateVariables: {},
};

export const engineDefaults: EngineSettings = {
  decodeConcurrency: 32,
  promptConcurrency: 8,
  maxQueue: 256,
  numDraftTokens: 3,
  promptCacheSize: 10,
};
