/** Fields of requests that several APIs share, and what becomes of them. */
import { z } from "zod";
import type { LogitsProcessorOptions, SamplerOptions } from "../sample";
import { invalid, unsupported } from "./api-error";
import { type Picture, pictureMark, pictureOfUrl } from "./pictures";
import type { RequestDefaults } from "./settings";

/** How tokens are chosen: OpenAI's fields, and mlx-lm's beside them. */
export const samplingFields = {
  temperature: z.number().min(0).max(100).optional(),
  top_p: z.number().min(0).max(1).optional(),
  top_k: z.int().min(-1).max(1e9).optional(),
  min_p: z.number().min(0).max(1).optional(),
  xtc_probability: z.number().min(0).max(1).optional(),
  xtc_threshold: z.number().min(0).max(0.5).optional(),
  seed: z
    .int()
    .min(-(2 ** 53) + 1)
    .max(2 ** 53 - 1)
    .optional(),
  repetition_penalty: z.number().min(0).max(1e6).optional(),
  repetition_context_size: z.int().min(1).max(1e9).optional(),
  presence_penalty: z.number().min(-1e6).max(1e6).optional(),
  presence_context_size: z.int().min(1).max(1e9).optional(),
  frequency_penalty: z.number().min(-1e6).max(1e6).optional(),
  frequency_context_size: z.int().min(1).max(1e9).optional(),
  logit_bias: z.record(z.string(), z.number().min(-1e6).max(1e6)).optional(),
};

/** So many texts may end an answer. */
export const mostStops = 64;

export const stopField = z
  .union([z.string(), z.array(z.string()).max(mostStops)])
  .optional()
  .transform((stop) => (typeof stop === "string" ? [stop] : stop));

type Sampling = z.infer<z.ZodObject<typeof samplingFields>>;

export function samplerOptions(fields: Sampling, defaults: RequestDefaults): SamplerOptions {
  const { temperature = defaults.temp, top_p = defaults.topP, top_k = defaults.topK, min_p = defaults.minP } = fields;
  const { xtc_probability: xtcProbability = 0, xtc_threshold: xtcThreshold = 0.1 } = fields;
  // A temperature that close to 0 would overflow.
  const temp = temperature < 1e-5 ? 0 : temperature;
  return { temp, topP: top_p, topK: Math.max(0, top_k), minP: min_p, xtcProbability, xtcThreshold };
}

export function penaltyOptions(fields: Sampling): LogitsProcessorOptions {
  return {
    logitBias: fields.logit_bias as Record<number, number> | undefined,
    // 1 divides by nothing; templates of clients send it always.
    repetitionPenalty: fields.repetition_penalty === 1 ? 0 : fields.repetition_penalty,
    repetitionContextSize: fields.repetition_context_size,
    presencePenalty: fields.presence_penalty,
    presenceContextSize: fields.presence_context_size,
    frequencyPenalty: fields.frequency_penalty,
    frequencyContextSize: fields.frequency_context_size,
  };
}

/** A seed as the random numbers take it: a number without sign. Answers beside the first get others. */
export function seedOf({ seed }: Sampling, index = 0): number | undefined {
  return seed === undefined ? undefined : Math.abs(seed) + index;
}

/**
 * The text of a message's content: plain, or parts of text and pictures, which go into `pictures`. A mark stands for each.
 * @throws ApiError for parts of other kinds
 */
export function textOf(content: unknown, param: string, pictures?: Picture[]): string {
  if (content === null || content === undefined) return "";
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) throw invalid(`"${param}" must be text, or a list of parts`, param);
  return content
    .map((part, i) => {
      const { type, text, image_url } = (part ?? {}) as { type?: unknown; text?: unknown; image_url?: unknown };
      const isText = type === "text" || type === "input_text" || type === "output_text";
      if (isText && typeof text === "string") return text;
      const { url, detail = "auto" } = ((type === "image_url" && image_url) || {}) as {
        url?: unknown;
        detail?: unknown;
      };
      if (pictures && url !== undefined) {
        if (detail !== "auto") throw unsupported(`${param}.${i}.image_url.detail`);
        pictures.push(pictureOfUrl(url, `${param}.${i}.image_url.url`));
        return pictureMark;
      }
      const kind = typeof type === "string" ? JSON.stringify(type) : "none";
      throw invalid(`"${param}.${i}": only parts of text are supported, not of the type ${kind}`, `${param}.${i}`);
    })
    .join("");
}
