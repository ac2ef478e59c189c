/** A request of /v1/messages: its fields, and what they ask for. */
import { z } from "zod";
import type { ChatMessage } from "../../../text/chat-template";
import { invalid } from "../../api-error";
import { type Chat, type Tool, thinkingVariables } from "../../chat";
import { mostStops, samplerOptions } from "../../fields";
import { type Picture, pictureMark } from "../../pictures";
import type { RequestDefaults } from "../../settings";
import { type FormWish, strictCalls } from "../../structured";
import { effortVariables } from "../openai/chat-request";

/** Where a prompt is worth keeping. All prompts are kept here, so that there is nothing more to do. */
const cache_control = z.strictObject({ type: z.literal("ephemeral"), ttl: z.enum(["5m", "1h"]).optional() }).nullish();

const text = z.strictObject({
  type: z.literal("text"),
  text: z.string(),
  cache_control,
  citations: z.null().optional(),
});

const toolResult = z.strictObject({
  type: z.literal("tool_result"),
  tool_use_id: z.string(),
  content: z.union([z.string(), z.array(text)]).optional(),
  is_error: z.boolean().optional(),
  cache_control,
});

const block = z.discriminatedUnion(
  "type",
  [
    text,
    toolResult,
    z.strictObject({
      type: z.literal("tool_use"),
      id: z.string(),
      name: z.string(),
      input: z.looseObject({}),
      cache_control,
    }),
    z.strictObject({
      type: z.literal("image"),
      source: z.strictObject({
        type: z.literal("base64"),
        media_type: z.enum(["image/jpeg", "image/png", "image/gif", "image/webp"]),
        data: z.string(),
      }),
      cache_control,
    }),
    z.strictObject({ type: z.literal("thinking"), thinking: z.string(), signature: z.string().optional() }),
    z.strictObject({ type: z.literal("redacted_thinking"), data: z.string() }),
  ],
  { error: (issue) => (issue.code === "invalid_union" ? "blocks of this type are not supported" : undefined) },
);

type Block = z.infer<typeof block>;

const message = z.strictObject({
  role: z.enum(["user", "assistant", "system"]),
  content: z.union([z.string(), z.array(block)]),
});

const tool = z.strictObject({
  type: z.literal("custom").optional(),
  name: z.string().min(1).max(256),
  description: z.string().optional(),
  input_schema: z.looseObject({}),
  strict: z.boolean().optional(),
  cache_control,
});

const parallel = { disable_parallel_tool_use: z.boolean().optional() };

const counted = {
  model: z.string().max(1000),
  messages: z.array(message).min(1),
  system: z.union([z.string(), z.array(text)]).optional(),
  tools: z.array(tool).max(1024).optional(),
  tool_choice: z
    .discriminatedUnion("type", [
      z.strictObject({ type: z.literal("auto"), ...parallel }),
      z.strictObject({ type: z.literal("any"), ...parallel }),
      z.strictObject({ type: z.literal("tool"), name: z.string(), ...parallel }),
      z.strictObject({ type: z.literal("none") }),
    ])
    .optional(),
  thinking: z
    .discriminatedUnion("type", [
      z.strictObject({ type: z.literal("enabled"), budget_tokens: z.int().min(1).max(1e9) }),
      z.strictObject({ type: z.literal("adaptive") }),
      z.strictObject({ type: z.literal("disabled") }),
    ])
    .optional(),
  output_config: z
    .strictObject({
      effort: z.enum(["low", "medium", "high", "xhigh"]).nullish(),
      format: z.strictObject({ type: z.literal("json_schema"), schema: z.looseObject({}) }).nullish(),
    })
    .optional(),
  /** For the whole of the prompt. */
  cache_control,
};

export const CountRequest = z.strictObject(counted);

export const MessagesRequest = z.strictObject({
  ...counted,
  max_tokens: z.int().min(1).max(1e9),
  stream: z.boolean().optional(),
  temperature: z.number().min(0).max(100).optional(),
  top_p: z.number().min(0).max(1).optional(),
  top_k: z.int().min(0).max(1e9).optional(),
  stop_sequences: z.array(z.string()).max(mostStops).optional(),
  /** Who asks: for the log. */
  metadata: z.strictObject({ user_id: z.string().nullish() }).optional(),
  service_tier: z.enum(["auto", "standard_only"]).optional(),
});

export type MessagesRequest = z.infer<typeof MessagesRequest>;

export function chatOf(request: MessagesRequest, defaults: RequestDefaults): Chat {
  const { tool_choice: choice, thinking } = request;
  return {
    ...askedOf(request),
    maxTokens: request.max_tokens,
    sampling: samplerOptions(request, defaults),
    stop: request.stop_sequences,
    thinkingBudget: thinking?.type === "enabled" ? thinking.budget_tokens : undefined,
    isSingle: choice !== undefined && choice.type !== "none" && choice.disable_parallel_tool_use === true,
  };
}

/** What becomes the prompt. */
export function askedOf({
  ...request
}: z.infer<typeof CountRequest>): Pick<Chat, "messages" | "pictures" | "tools" | "templateVariables"> {
  const { system, tools, tool_choice: choice, thinking, output_config } = request;
  const thinks = thinking !== undefined && thinking.type !== "disabled";
  const effort = output_config?.effort;
  const pictures: Picture[] = [];
  const messages = request.messages.flatMap((message, i) => messagesOf(message, i, pictures));
  return {
    ...{ messages: [...systemMessage(system), ...messages], pictures },
    tools: choice?.type === "none" ? undefined : tools?.map(toolOf),
    templateVariables: { ...(effort && effortVariables(effort)), ...thinkingVariables(thinks) },
  };
}

function systemMessage(system: MessagesRequest["system"]): ChatMessage[] {
  if (system === undefined) return [];
  const content = typeof system === "string" ? system : system.map(({ text }) => text).join("\n\n");
  return content === "" ? [] : [{ role: "system", content }];
}

function toolOf({ name, description, input_schema: parameters }: z.infer<typeof tool>): Tool {
  return { type: "function", function: { name, ...(description && { description }), parameters } };
}

/** One message may be several here: what tools answered has messages of its own. */
function messagesOf(
  { role, content }: MessagesRequest["messages"][number],
  index: number,
  pictures: Picture[],
): ChatMessage[] {
  if (typeof content === "string") return [{ role, content }];
  const of = <T extends Block["type"]>(type: T) =>
    content.filter((one): one is Extract<Block, { type: T }> => one.type === type);
  const isUsers = (type: Block["type"]) => type === "tool_result" || type === "image";
  const misplaced = content.find(({ type }) => type !== "text" && isUsers(type) !== (role === "user"));
  if (misplaced)
    throw invalid(
      `"messages.${index}": a ${misplaced.type} block does not belong to ${role}`,
      `messages.${index}.content`,
    );
  const said = content
    .map((one, i) => {
      if (one.type !== "image") return one.type === "text" ? one.text : "";
      pictures.push({ base64: one.source.data, param: `messages.${index}.content.${i}.source.data` });
      return pictureMark;
    })
    .join("");
  if (role !== "assistant") {
    const answers = of("tool_result").map(answerOf);
    return said !== "" || answers.length === 0 ? [...answers, { role, content: said }] : answers;
  }
  const thoughts = of("thinking")
    .map(({ thinking }) => thinking)
    .join("");
  const calls = of("tool_use").map(({ id, name, input }) => ({
    id,
    type: "function",
    function: { name, arguments: input },
  }));
  return [
    {
      ...{ role, content: said },
      ...(thoughts !== "" && { reasoning_content: thoughts }),
      ...(calls.length > 0 && { tool_calls: calls }),
    },
  ];
}

function answerOf({ tool_use_id, content = "", is_error }: z.infer<typeof toolResult>): ChatMessage {
  const text = typeof content === "string" ? content : content.map(({ text }) => text).join("");
  return { role: "tool", tool_call_id: tool_use_id, content: is_error ? `Error: ${text}` : text };
}

/** The form that the answer must have, if any. @throws ApiError for two at once, or a tool that is not on offer */
export function formWish({ tool_choice: choice, tools = [], output_config }: MessagesRequest): FormWish | undefined {
  const format = output_config?.format;
  if (choice?.type !== "any" && choice?.type !== "tool") {
    const offered = tools.map((one) => ({ tool: toolOf(one), isStrict: one.strict === true }));
    const isParallel = choice?.type !== "auto" || choice.disable_parallel_tool_use !== true;
    const strict = choice?.type === "none" ? undefined : strictCalls(offered, isParallel);
    if (!format) return strict;
    if (strict) throw invalid('"output_config.format" and strict "tools" do not go together', "tools");
    return { param: "output_config.format", form: { type: "json_schema", schema: format.schema } };
  }
  if (format) throw invalid('"output_config.format" and "tool_choice" do not go together', "tool_choice");
  const callable = tools.filter(({ name }) => choice.type === "any" || name === choice.name).map(toolOf);
  if (callable.length === 0) throw invalid('"tool_choice" names no tool on offer', "tool_choice");
  return { param: "tool_choice", form: { type: "call", tools: callable } };
}
