/** Requests of Ollama's API: their fields, and what they ask for. */
import { z } from "zod";
import type { ChatMessage } from "../../../text/chat-template";
import { invalid } from "../../api-error";
import { type Chat, thinkingVariables } from "../../chat";
import { duration } from "../../durations";
import { mostStops, penaltyOptions, samplerOptions } from "../../fields";
import { type Picture, pictureMark } from "../../pictures";
import type { RequestDefaults } from "../../settings";
import { type FormWish, strictCalls } from "../../structured";
import { toolField, withoutStrict } from "../openai/chat-request";

const options = z.strictObject({
  num_predict: z.int().min(-2).max(1e9).optional(),
  temperature: z.number().min(0).max(100).optional(),
  top_k: z.int().min(-1).max(1e9).optional(),
  top_p: z.number().min(0).max(1).optional(),
  min_p: z.number().min(0).max(1).optional(),
  seed: z
    .int()
    .min(-(2 ** 53) + 1)
    .max(2 ** 53 - 1)
    .optional(),
  stop: z.union([z.string(), z.array(z.string()).max(mostStops)]).optional(),
  repeat_penalty: z.number().min(0).max(1e6).optional(),
  repeat_last_n: z.int().min(-1).max(1e9).optional(),
  presence_penalty: z.number().min(-1e6).max(1e6).optional(),
  frequency_penalty: z.number().min(-1e6).max(1e6).optional(),
  /** Tokens of prompt and answer together, at most. */
  num_ctx: z.int().min(1).max(1e9).optional(),
});

type Options = z.infer<typeof options>;

export const keepAliveField = z
  .union([z.number(), z.string()])
  .optional()
  .transform((value, context) => {
    if (value === undefined) return undefined;
    const seconds = typeof value === "number" ? value : duration(value);
    if (seconds === null) context.addIssue({ code: "custom", message: `"${value}" is no time, as 5m is` });
    return seconds ?? undefined;
  });

const thinkField = z.union([z.boolean(), z.enum(["low", "medium", "high"])]);

const shared = {
  model: z.string().max(1000),
  stream: z.boolean().optional(),
  format: z.union([z.enum(["", "json"]), z.looseObject({})]).optional(),
  options: options.optional(),
  keep_alive: keepAliveField,
  think: thinkField.optional(),
};

const message = z.strictObject({
  role: z.enum(["system", "user", "assistant", "tool"]),
  content: z.string().nullish(),
  thinking: z.string().nullish(),
  /** Base64 each. */
  images: z.array(z.string()).nullish(),
  tool_name: z.string().nullish(),
  tool_call_id: z.string().nullish(),
  tool_calls: z
    .array(
      z.strictObject({
        id: z.string().optional(),
        type: z.literal("function").optional(),
        function: z.strictObject({
          index: z.int().optional(),
          name: z.string(),
          description: z.string().optional(),
          arguments: z.looseObject({}).optional(),
        }),
      }),
    )
    .nullish(),
});

export const OllamaChatRequest = z.strictObject({
  ...shared,
  messages: z.array(message).optional(),
  tools: z.array(toolField).max(1024).optional(),
});

export const GenerateRequest = z.strictObject({
  ...shared,
  prompt: z.string().optional(),
  system: z.string().optional(),
  raw: z.boolean().optional(),
  images: z.array(z.string()).optional(),
});

export const EmbedRequest = z.strictObject({
  model: z.string().max(1000),
  input: z.union([z.string(), z.array(z.string()).max(2048)]),
  truncate: z.boolean().optional(),
  dimensions: z.int().min(1).max(1e6).optional(),
  keep_alive: keepAliveField,
});

/** What both generating routes ask for alike. */
export function askedOf(
  { options = {}, think }: { options?: Options; think?: z.infer<typeof thinkField> },
  defaults: RequestDefaults,
): Omit<Chat, "messages"> {
  const { num_predict = -1, repeat_penalty, repeat_last_n, stop, ...sampling } = options;
  // Of the last so many tokens; of all where it is -1.
  const last = repeat_last_n === -1 ? 1e9 : (repeat_last_n ?? 64);
  const sizes = { repetition_context_size: last, presence_context_size: last, frequency_context_size: last };
  const penalties = { ...sampling, repetition_penalty: repeat_penalty, ...sizes };
  return {
    maxTokens: num_predict < 1 ? -1 : num_predict,
    sampling: samplerOptions(sampling, defaults),
    penalties: last === 0 ? undefined : penaltyOptions(penalties),
    seed: options.seed === undefined || options.seed < 0 ? undefined : options.seed,
    stop: typeof stop === "string" ? [stop] : stop,
    contextLimit: options.num_ctx,
    templateVariables: think === undefined ? {} : thinkVariables(think),
  };
}

function thinkVariables(think: z.infer<typeof thinkField>): Record<string, unknown> {
  if (typeof think === "boolean") return thinkingVariables(think);
  return { reasoning_effort: think, ...thinkingVariables(true) };
}

export function messagesOf(messages: z.infer<typeof message>[]): Pick<Chat, "messages" | "pictures"> {
  const pictures: Picture[] = [];
  const written = messages.map(({ images, thinking, tool_name, content, ...rest }, i) => {
    const own = picturesOf(images ?? [], `messages.${i}.images`);
    if (own.length > 0 && rest.role !== "user") {
      throw invalid(`"messages.${i}.images": pictures are the user's`, `messages.${i}.images`);
    }
    pictures.push(...own);
    return {
      ...rest,
      content: marked(own, content ?? ""),
      ...(thinking && { reasoning_content: thinking }),
      ...(tool_name && { name: tool_name }),
      ...(rest.tool_calls && { tool_calls: rest.tool_calls.map((call) => ({ type: "function", ...call })) }),
    } as ChatMessage;
  });
  return { messages: written, pictures };
}

export const picturesOf = (images: readonly string[], param: string): Picture[] =>
  images.map((base64, i) => ({ base64, param: `${param}.${i}` }));

/** A text behind its pictures. */
export const marked = (pictures: readonly Picture[], text: string) => pictureMark.repeat(pictures.length) + text;

/** The form that the answer must have, if any. @throws ApiError for a format beside strict tools */
export function formWish({
  format,
  tools = [],
}: Pick<z.infer<typeof OllamaChatRequest>, "format" | "tools">): FormWish | undefined {
  const strict = strictCalls(
    tools.map((one) => ({ tool: withoutStrict(one), isStrict: one.function.strict === true })),
    true,
  );
  if (format === undefined || format === "") return strict;
  if (strict) throw invalid('"format" and strict "tools" do not go together', "tools");
  const form =
    format === "json" ? ({ type: "json_object" } as const) : ({ type: "json_schema", schema: format } as const);
  return { param: "format", form };
}
