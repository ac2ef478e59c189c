/** GLM 5: DeepSeek V3.2 whose indexer turns neighbouring features. */
import { z } from "zod";
import { size } from "./args";
import { blockAwq } from "./awq-facts";
import * as deepseek from "./deepseek_v3";
import * as deepseek32 from "./deepseek_v32";
import { latent } from "./gguf/deepseek2";

const everyLayer = "full";

export const Args = z
  .object({
    ...deepseek.fields,
    ...deepseek32.indexerFields,
    indexer_rope_interleave: z.boolean().default(true),
    index_n_heads: size.default(32),
    first_k_dense_replace: z.int().nonnegative().default(3),
    rms_norm_eps: z.number().positive().default(1e-5),
    /** Layers that share the choice of an earlier one are not supported. */
    indexer_types: z.array(z.literal(everyLayer)).nullish(),
    index_topk_freq: z.literal(1).nullish(),
    index_topk_pattern: z.union([z.string().regex(/^F*$/), z.array(z.literal(everyLayer))]).nullish(),
  })
  .superRefine(deepseek.checkExperts);

export const { Model, joins, keepsDtype, mtp } = deepseek32;

export const awq = blockAwq();

export const gguf = latent({ architecture: "glm-dsa", indexer: { turnsNeighbours: true, mayShare: true } });
