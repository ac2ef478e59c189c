/** A request of /v1/chat/completions: its fields, and what they ask for. */
import { z } from "zod";
import type { ChatMessage } from "../../../text/chat-template";
import { invalid } from "../../api-error";
import { type Chat, type Tool, thinkingVariables } from "../../chat";
import { penaltyOptions, samplerOptions, seedOf, textOf } from "../../fields";
import type { Picture } from "../../pictures";
import type { RequestDefaults } from "../../settings";
import { type Form, type FormWish, strictCalls } from "../../structured";
import { generatingFields } from "./fields";

const message = z.looseObject({
  role: z.enum(["system", "developer", "user", "assistant", "tool", "function"]),
  content: z.union([z.string(), z.null(), z.array(z.unknown())]).optional(),
  tool_calls: z
    .array(
      z.looseObject({
        id: z.string().optional(),
        type: z.literal("function").optional(),
        function: z.looseObject({ name: z.string(), arguments: z.union([z.string(), z.looseObject({})]).optional() }),
      }),
    )
    .nullish(),
});

export const toolField = z.strictObject({
  type: z.literal("function"),
  function: z.strictObject({
    name: z.string().min(1).max(256),
    description: z.string().nullish(),
    parameters: z.looseObject({}).nullish(),
    strict: z.boolean().nullish(),
  }),
});

const toolChoice = z.union([
  z.enum(["none", "auto", "required"]),
  z.strictObject({ type: z.literal("function"), function: z.strictObject({ name: z.string() }) }),
]);

const responseFormat = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("text") }),
  z.strictObject({ type: z.literal("json_object") }),
  z.strictObject({
    type: z.literal("json_schema"),
    json_schema: z.strictObject({
      name: z.string().optional(),
      description: z.string().optional(),
      schema: z.looseObject({}),
      strict: z.boolean().nullish(),
    }),
  }),
]);

export const efforts = ["none", "minimal", "low", "medium", "high", "xhigh"] as const;

export const ChatRequest = z.strictObject({
  ...generatingFields,
  messages: z.array(message).min(1),
  max_completion_tokens: z.int().min(1).max(1e9).optional(),
  logprobs: z.boolean().optional(),
  top_logprobs: z.int().min(0).max(20).optional(),
  tools: z.array(toolField).max(1024).optional(),
  tool_choice: toolChoice.optional(),
  parallel_tool_calls: z.boolean().optional(),
  response_format: responseFormat.optional(),
  guided_regex: z.string().optional(),
  guided_choice: z.array(z.string()).min(1).optional(),
  guided_grammar: z.string().optional(),
  reasoning_effort: z.enum(efforts).optional(),
  /** Tokens of a thought, at most. */
  thinking_budget: z.int().min(0).max(1e9).optional(),
  chat_template_kwargs: z.record(z.string(), z.unknown()).optional(),
  role_mapping: z.record(z.string(), z.string()).optional(),
  /** Words for the log of whoever asks; nothing is kept. */
  metadata: z.record(z.string(), z.string()).optional(),
  safety_identifier: z.string().max(1000).optional(),
  /** A hint: prompts are kept by what they say. */
  prompt_cache_key: z.string().max(1000).optional(),
  service_tier: z.enum(["auto", "default"]).optional(),
  store: z.literal(false).optional(),
  modalities: z.tuple([z.literal("text")]).optional(),
});

export type ChatRequest = z.infer<typeof ChatRequest>;

/** @throws ApiError for content that is no text */
export function chatOf(request: ChatRequest, defaults: RequestDefaults): Chat {
  const { tool_choice, tools, reasoning_effort: effort, logprobs, top_logprobs } = request;
  if (top_logprobs !== undefined && logprobs !== true) {
    throw invalid('"top_logprobs" needs "logprobs": true', "top_logprobs");
  }
  const pictures: Picture[] = [];
  const messages = request.messages.map((message, i) => messageOf(message, i, pictures));
  if (pictures.length > 0 && request.adapters !== undefined) {
    throw invalid('"adapters" do not go with pictures', "adapters");
  }
  return {
    ...{ messages, pictures },
    tools: tool_choice === "none" ? undefined : tools?.map(withoutStrict),
    templateVariables: { ...(effort ? effortVariables(effort) : {}), ...request.chat_template_kwargs },
    roleMapping: request.role_mapping,
    maxTokens: request.max_completion_tokens ?? request.max_tokens ?? defaults.maxTokens,
    sampling: samplerOptions(request, defaults),
    penalties: penaltyOptions(request),
    seed: seedOf(request),
    stop: request.stop,
    thinkingBudget: request.thinking_budget,
    logprobs: logprobs ? (top_logprobs ?? 0) : undefined,
  };
}

/** Templates know efforts by name, or only whether to think at all. */
export function effortVariables(effort: (typeof efforts)[number]): Record<string, unknown> {
  if (effort === "none") return thinkingVariables(false);
  return { reasoning_effort: effort, ...thinkingVariables(true) };
}

function messageOf(message: ChatRequest["messages"][number], index: number, pictures: Picture[]): ChatMessage {
  const isAsked = message.role === "user";
  const content = textOf(message.content, `messages.${index}.content`, isAsked ? pictures : undefined);
  return { ...message, content } as ChatMessage;
}

/** A tool as templates read it. */
export function withoutStrict({
  type,
  function: { strict: _, ...offered },
}: NonNullable<ChatRequest["tools"]>[number]): Tool {
  const { description, parameters } = offered;
  return {
    type,
    function: { name: offered.name, ...(description && { description }), ...(parameters && { parameters }) },
  };
}

/** The form that the answer must have, if any. @throws ApiError for two at once, or a tool that is not on offer */
export function formWish(request: ChatRequest): FormWish | undefined {
  const { response_format: format, tool_choice: choice, tools = [] } = request;
  const wishes: FormWish[] = [];
  const wish = (param: string, form: Form) => wishes.push({ param, form });
  if (format?.type === "json_object") wish("response_format", { type: "json_object" });
  if (format?.type === "json_schema")
    wish("response_format", { type: "json_schema", schema: format.json_schema.schema });
  if (request.guided_regex !== undefined) wish("guided_regex", { type: "regex", regex: request.guided_regex });
  if (request.guided_choice) wish("guided_choice", { type: "choice", choices: request.guided_choice });
  if (request.guided_grammar !== undefined)
    wish("guided_grammar", { type: "grammar", grammar: request.guided_grammar });
  if (choice === "required" || typeof choice === "object") {
    const named = typeof choice === "object" ? choice.function.name : null;
    const callable = tools.filter(({ function: { name } }) => named === null || name === named).map(withoutStrict);
    if (callable.length === 0) {
      throw invalid(named === null ? '"tool_choice" needs "tools"' : `there is no tool "${named}"`, "tool_choice");
    }
    wish("tool_choice", { type: "call", tools: callable });
  } else if (choice !== "none") {
    const offered = tools.map((tool) => ({ tool: withoutStrict(tool), isStrict: tool.function.strict === true }));
    const strict = strictCalls(offered, request.parallel_tool_calls !== false);
    if (strict) wishes.push(strict);
  }
  if (wishes.length > 1)
    throw invalid(`"${wishes[0]!.param}" and "${wishes[1]!.param}" do not go together`, wishes[1]!.param);
  return wishes[0];
}
