/** Qwen 3.5 with layers of 2 bits, whose weights were rotated ahead of packing. The configuration lists them. */
import { z } from "zod";
import { UserError } from "../errors";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { Embedding, HadamardEmbedding, HadamardLinear, Linear } from "../nn";
import * as qwen3_5 from "./qwen3_5";

/** What the weights' names are like, by the version of the format: with a vision tower beside them in the second. */
const namespaces = { 1: "mlx-lm-text", 2: "mlx-vlm-qwen3_5" } as const;

const PackedModule = z.object({
  /** Path within the language model. */
  path: z.string(),
  embedding: z.boolean(),
  dtype: z.literal("float16"),
  /** Width of the blocks that are rotated; 0 for none. */
  block: z.int().nonnegative(),
});

const Pack = z
  .looseObject({
    schema_version: z.union([z.literal(1), z.literal(2)]).default(2),
    tensor_namespace: z.string(),
    gdn_activation_layout: z.literal("grouped").default("grouped"),
    quantization: z.looseObject({ bits: z.literal(2), group_size: z.literal(128), mode: z.literal("affine") }),
    modules: z.array(PackedModule).min(1),
  })
  .superRefine(({ schema_version: version, tensor_namespace: namespace }, context) => {
    if (namespaces[version] === namespace) return;
    const message = `is ${JSON.stringify(namespace)}, but version ${version} has "${namespaces[version]}"`;
    context.addIssue({ code: "custom", path: ["tensor_namespace"], message });
  })
  .superRefine(({ modules }, context) => {
    const paths = modules.map(({ path }) => path);
    const twice = paths.findIndex((path, i) => paths.indexOf(path) < i);
    if (twice === -1) return;
    context.addIssue({ code: "custom", path: ["modules", twice, "path"], message: `has "${paths[twice]}" twice` });
  });

export const Args = Pack.transform((config, context) => {
  const text = qwen3_5.Args.safeParse(config);
  if (text.success) return { text: text.data, modules: config.modules };
  for (const issue of text.error.issues) context.issues.push({ ...issue, input: config } as z.core.$ZodRawIssue);
  return z.NEVER;
});

type Args = z.infer<typeof Args>;

export class Model extends qwen3_5.Model {
  readonly #rotated: readonly string[];

  /** @throws UserError where a listed path is no such layer of the model */
  constructor({ text, modules }: Args) {
    super(text);
    try {
      for (const one of modules) this.#pack(one);
    } catch (error) {
      this.dispose();
      throw error;
    }
    this.#rotated = modules.filter(({ block }) => block > 0).map(({ path }) => `language_model.${path}.signs`);
  }

  /** Puts a packed layer in the place of a plain one. */
  #pack({ path, embedding, block }: z.infer<typeof PackedModule>): void {
    const layer = this.language_model.namedModules().find(([name]) => name === path)?.[1];
    const isRight = embedding ? layer instanceof Embedding : layer instanceof Linear && !layer.bias;
    if (!isRight) {
      const kind = embedding ? "an embedding" : "a linear layer without bias";
      throw new UserError(`config.json: "modules" lists ${path} as ${kind}, which the model does not have there`, {
        hint: "Fix the file, or download the model again.",
      });
    }
    const plain = layer as Embedding | Linear;
    const [rows, width] = plain.weight.shape as [number, number];
    this.language_model.replace(path, new (embedding ? HadamardEmbedding : HadamardLinear)(width, rows, block));
    plain.dispose();
  }

  /** @throws UserError where the signs of a layer are missing, or others than −1 and 1 */
  override sanitize(weights: Map<string, Tensor>): Map<string, Tensor> {
    const sanitized = super.sanitize(weights);
    const wrong = this.#rotated.find((name) => {
      const signs = sanitized.get(name);
      return !signs || mx.scope(() => signs.abs().notEqual(1).any().item());
    });
    if (!wrong) return sanitized;
    const problem = sanitized.has(wrong) ? "has other values than -1 and 1" : "is missing";
    throw new UserError(`the weights' ${wrong} ${problem}`, { hint: "Download the model again." });
  }
}

/** Decay rates and signs stay in float32. */
export const keepsDtype = (path: string): boolean => qwen3_5.keepsDtype(path) || path.endsWith(".signs");

export const { joins } = qwen3_5;
