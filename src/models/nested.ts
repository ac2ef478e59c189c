/** Language models that are one part of a checkpoint for more than text. The other parts are left out. */
import { z } from "zod";
import type { Tensor } from "../mlx";
import { type Cache, type CacheOptions, type DecoderLayer, type ForwardOptions, Module } from "../nn";
import type { LanguageModel } from "./language-model";

/**
 * The schema of a config.json that has a language model's fields under `text_config`, or bare. Only
 * `tie_word_embeddings` and `vocab_size` may stand at the top for those below.
 */
export function nestedArgs<T extends z.ZodType>(fields: T) {
  return z.record(z.string(), z.unknown()).transform((config, context): z.infer<T> => {
    const { text_config: text, tie_word_embeddings, vocab_size } = config;
    const isNested = text !== undefined && text !== null;
    const result = fields.safeParse(isNested ? withDefault(text, { tie_word_embeddings, vocab_size }) : config);
    if (result.success) return result.data;
    for (const issue of result.error.issues) {
      const path = isNested ? ["text_config", ...issue.path] : issue.path;
      context.issues.push({ ...issue, path, input: config } as z.core.$ZodRawIssue);
    }
    return z.NEVER;
  });
}

const withDefault = (text: unknown, outer: object) => (typeof text === "object" ? { ...outer, ...text } : text);

/** The parts for images and sound. */
const otherParts =
  /^(model\.)?(vision_tower|vision_model|visual|vision_embedder|audio_tower|embed_vision|embed_audio|multi_modal_projector|mm_projector|patch_merge_mlp)\./;

/** Whether a tensor belongs to a part for images or sound, which is left out. */
export const isOtherPart = (name: string): boolean => otherParts.test(name);

/** The names of the language model in checkpoints of transformers, and in those of MLX. */
const [theirs, ours] = ["model.language_model.", "language_model."] as const;

/** A text model's tensors by the names of its own checkpoint: programs for images as well put a prefix before them. */
export const withoutPrefix = (weights: ReadonlyMap<string, Tensor>): Map<string, Tensor> =>
  new Map([...weights].map(([name, weight]) => [name.startsWith(ours) ? name.slice(ours.length) : name, weight]));

export class NestedLM extends Module implements LanguageModel {
  constructor(readonly language_model: LanguageModel) {
    super();
  }

  get layers(): readonly DecoderLayer<Cache>[] {
    return this.language_model.layers;
  }

  get vocabSize(): number {
    return this.language_model.vocabSize;
  }

  forward(inputs: Tensor, options?: ForwardOptions<Cache>): Tensor {
    return this.language_model.forward(inputs, options);
  }

  /** Leaves out the other parts, and gives the language model's names one prefix. */
  sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const inner = new Map<string, Tensor>();
    for (const [name, weight] of weights) {
      if (isOtherPart(name)) continue;
      if (name.startsWith(theirs)) inner.set(`model.${name.slice(theirs.length)}`, weight);
      else inner.set(name.startsWith(ours) ? name.slice(ours.length) : name, weight);
    }
    return new Map([...this.language_model.sanitize(inner)].map(([name, weight]) => [`${ours}${name}`, weight]));
  }

  makeCache(options?: CacheOptions): Cache[] {
    return this.language_model.makeCache(options);
  }
}
