/** Fields of config.json that many architectures share, and what they mean. */
import { z } from "zod";
import { UserError } from "../errors";
import { gelu, geluApprox, type MaskRule, type RopeOptions, RopeScaling, slidingWindow } from "../nn";

/** A dimension, a length or a count: MLX has 32 bits for one. */
export const size = z
  .int()
  .positive()
  .max(2 ** 31 - 1);

const anyNumber = z.custom<number>((value) => typeof value === "number", {
  error: ({ input }) => `is ${JSON.stringify(input)}, but must be a number`,
});

/** The least and the most of a state's steps. Zod's numbers are finite, and most files say that there is no most. */
export const stepLimits = z.tuple([z.number(), anyNumber]);

/** A number of things of which there may be none. */
export const count = z.int().nonnegative();

/** Transformers 5 writes here what `rope_theta` and `rope_scaling` were: one set, or one for each type of layer. */
export const RopeParameters = z.union([RopeScaling, z.record(z.string(), RopeScaling)]);

type RopeParameters = z.infer<typeof RopeParameters>;

export const ropeFields = {
  rope_theta: z.number().positive().nullish(),
  rope_scaling: RopeScaling.nullish(),
  rope_parameters: RopeParameters.nullish(),
};

export type RopeFields = z.infer<z.ZodObject<typeof ropeFields>>;

const isByLayerType = (parameters: RopeParameters): parameters is Record<string, RopeScaling> =>
  Object.values(parameters).some((value) => typeof value === "object" && value !== null && !Array.isArray(value));

/**
 * The set of a type of layer; null where the configuration has none.
 * @throws UserError where there are sets by type of layer, but none for this one
 */
function ropeSet({ rope_parameters: parameters }: RopeFields, layerType: string): RopeScaling | null {
  if (!parameters) return null;
  if (!isByLayerType(parameters)) return parameters;
  const set = parameters[layerType];
  if (set) return set;
  throw new UserError(`config.json: "rope_parameters" has no set for layers of type "${layerType}"`, {
    hint: `It has ${Object.keys(parameters).join(", ")}.`,
  });
}

export interface RopeDefaults {
  base: number;
  /** As config.json calls the type of the layer. */
  layerType?: string;
}

/** Base and stretching of rotary embeddings, from the old fields or the new one. */
export function ropeOptions(
  fields: RopeFields,
  { base, layerType = "full_attention" }: RopeDefaults,
): Pick<RopeOptions, "base" | "scaling"> {
  const set = ropeSet(fields, layerType);
  return {
    base: fields.rope_theta ?? set?.rope_theta ?? base,
    scaling: fields.rope_scaling ?? set,
  };
}

/** What most architectures say of their trunk. */
export const trunkFields = {
  hidden_size: size,
  num_hidden_layers: size,
  vocab_size: size,
  rms_norm_eps: z.number().positive(),
  tie_word_embeddings: z.boolean().default(true),
};

/** What most say of their attention. */
export const attentionFields = {
  num_attention_heads: size,
  num_key_value_heads: size.nullish(),
  head_dim: size.nullish(),
  max_position_embeddings: size.nullish(),
  ...ropeFields,
  rope_traditional: z.boolean().default(false),
  attention_bias: z.boolean().default(false),
};

/** A decoder whose layers are attention and one feed-forward block. */
export const denseFields = { ...trunkFields, ...attentionFields, intermediate_size: size };

interface HeadFields {
  hidden_size: number;
  num_attention_heads: number;
  num_key_value_heads?: number | null;
  head_dim?: number | null;
}

export interface Heads {
  heads: number;
  kvHeads: number;
  headDim: number;
}

/** Numbers of heads and their width, with what the configuration leaves out. */
export function headsOf(args: HeadFields): Heads {
  const heads = args.num_attention_heads;
  return {
    heads,
    kvHeads: args.num_key_value_heads ?? heads,
    headDim: args.head_dim ?? Math.floor(args.hidden_size / heads),
  };
}

interface RotatedHeadFields extends HeadFields, RopeFields {
  rope_traditional?: boolean;
  max_position_embeddings?: number | null;
}

/** How whole heads are rotated, by the usual fields. */
export function ropeOf(args: RotatedHeadFields, { base = 10_000, layerType }: Partial<RopeDefaults> = {}): RopeOptions {
  return {
    dims: headsOf(args).headDim,
    traditional: args.rope_traditional,
    maxPositions: args.max_position_embeddings,
    ...ropeOptions(args, { base, layerType }),
  };
}

/** For `superRefine`: queries must be shared evenly by key-value heads, and the width by heads. */
export function checkHeads(args: HeadFields, context: z.RefinementCtx): void {
  const { heads, kvHeads } = headsOf(args);
  const problem = (field: string, message: string) => context.addIssue({ code: "custom", path: [field], message });
  if (heads % kvHeads !== 0) {
    problem("num_key_value_heads", `is ${kvHeads}, but "num_attention_heads" (${heads}) must be a multiple of it`);
  }
  if (!args.head_dim && args.hidden_size % heads !== 0) {
    problem("hidden_size", `is ${args.hidden_size}, but must be a multiple of "num_attention_heads" (${heads})`);
  }
}

/**
 * For `superRefine`: a token uses no more experts than there are. A model without experts (0) passes.
 * @param used @param all the fields that say how many
 */
export const checkExperts =
  <Used extends string, All extends string>(used: Used, all: All) =>
  (args: Record<Used | All, number>, context: z.RefinementCtx): void => {
    if (args[all] === 0 || args[used] <= args[all]) return;
    context.addIssue({ code: "custom", path: [used], message: `is ${args[used]}, but "${all}" is ${args[all]}` });
  };

/** GELU as a configuration names it: exact, unless it says that it is tanh's. mlx-lm takes the exact one for both. */
export const geluOf = (name: string | null | undefined) => (name === "gelu_pytorch_tanh" ? geluApprox : gelu);

/** The types that layers of attention have. */
export const AttentionType = z.enum(["full_attention", "sliding_attention"]);

export type AttentionType = z.infer<typeof AttentionType>;

/** How a configuration says which layers slide: one by one, or all from `max_window_layers` on (Qwen). */
export const slidingFields = {
  layer_types: z.array(AttentionType).nullish(),
  sliding_window: size.nullish(),
  use_sliding_window: z.boolean().nullish(),
  max_window_layers: z.int().nonnegative().nullish(),
};

type SlidingFields = z.infer<z.ZodObject<typeof slidingFields>>;

/** The type of a layer. */
export function layerType(args: SlidingFields, index: number): AttentionType {
  if (args.layer_types) return args.layer_types[index]!;
  const slides = args.use_sliding_window && args.sliding_window && index >= (args.max_window_layers ?? 0);
  return slides ? "sliding_attention" : "full_attention";
}

/** The mask of a layer of such a type; the usual one where it attends to all. */
export const maskOf = (type: AttentionType, { sliding_window: window }: SlidingFields): MaskRule | undefined =>
  type === "sliding_attention" ? slidingWindow(window!) : undefined;

/** For `superRefine`: a type for each layer, and a window where layers slide. */
export function checkLayerTypes(args: SlidingFields & { num_hidden_layers: number }, context: z.RefinementCtx): void {
  const { layer_types: types, num_hidden_layers: count } = args;
  const problem = (message: string) => context.addIssue({ code: "custom", path: ["layer_types"], message });
  if (!types) return;
  if (types.length !== count) problem(`has ${types.length} entries, but "num_hidden_layers" is ${count}`);
  if (types.includes("sliding_attention") && !args.sliding_window) {
    problem(`has "sliding_attention", but there is no "sliding_window"`);
  }
}
