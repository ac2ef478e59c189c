/** GLM 5: DeepSeek V3.2 whose indexer turns neighbouring features; of GLM 5.2, most layers take the choice of an earlier one. */
import { z } from "zod";
import { count, size } from "./args";
import { blockAwq } from "./awq-facts";
import * as deepseek from "./deepseek_v3";
import * as deepseek32 from "./deepseek_v32";
import { latent } from "./gguf/deepseek2";

const IndexerType = z.enum(["full", "shared"]);

const letters = { F: "full", S: "shared" } as const;

/** By layer, as a word of F and S or a list. */
const Pattern = z.union([
  z
    .string()
    .regex(/^[FS]*$/)
    .transform((word) => [...word].map((letter) => letters[letter as keyof typeof letters])),
  z.array(IndexerType),
]);

export const Args = z
  .object({
    ...deepseek.fields,
    ...deepseek32.indexerFields,
    indexer_rope_interleave: z.boolean().default(true),
    index_n_heads: size.default(32),
    first_k_dense_replace: z.int().nonnegative().default(3),
    rms_norm_eps: z.number().positive().default(1e-5),
    /** Which layers choose tokens themselves, and which take the choice of the nearest one ahead that does. */
    indexer_types: z.array(IndexerType).nullish(),
    index_topk_pattern: Pattern.nullish(),
    /** Where no list says it: each so manieth layer chooses, and all of the first so many. */
    index_topk_freq: size.nullish(),
    index_skip_topk_offset: count.default(2),
  })
  .superRefine(deepseek.checkExperts)
  .transform(({ index_topk_pattern: pattern, index_topk_freq: period = 1, index_skip_topk_offset: first, ...args }) => {
    const types =
      args.indexer_types ??
      pattern ??
      Array.from({ length: args.num_hidden_layers }, (_, index) => typeAt(index, period ?? 1, first));
    return { ...args, indexer_types: types };
  })
  .superRefine(({ indexer_types: types, num_hidden_layers: layers }, context) => {
    const problem = (message: string) => context.addIssue({ code: "custom", path: ["indexer_types"], message });
    // Checkpoints may say draft layers' too, behind the model's.
    if (types.length < layers) problem(`has ${types.length} entries, but "num_hidden_layers" is ${layers}`);
    if (types[0] === "shared") problem("begins with a layer that shares, and there is none ahead of it");
  });

/** As transformers counts. */
const typeAt = (index: number, period: number, first: number): deepseek32.IndexerType =>
  Math.max(index - first + 1, 0) % period === 0 ? "full" : "shared";

export const { Model, joins, keepsDtype, mtp } = deepseek32;

export const awq = blockAwq();

export const gguf = latent({ architecture: "glm-dsa", indexer: { turnsNeighbours: true, mayShare: true } });
