/** Anthropic's routes, field by field. */
import { CountRequest, MessagesRequest } from "../../src/serve/routes/anthropic/request";
import { acts, type Body, nothing, type Route, type Row, refuses, shown } from "./table";

const kept = "every prompt is kept: nothing more is to be done";
const input_schema = { type: "object", properties: { city: { type: "string", maxLength: 3 } }, required: ["city"] };
const tool = { name: "weather", description: "of a city", input_schema };
const offers = (more: Body = {}) => ({ tools: [{ ...tool, ...more }] });
const unheld = { input_schema: { not: {} } };
const two = { tools: [tool, { ...tool, name: "news" }] };
const question = { role: "user", content: "Weather?" };
const use = { type: "tool_use", id: "1", name: "weather", input: {} };
const result = { type: "tool_result", tool_use_id: "1", content: "rain" };
const thought = { type: "thinking", thinking: "a" };

/** A block of a message, and the same one with something changed. */
const block = (role: string, one: Body, change: Body): Row => {
  const messages = (last: Body) => ({ messages: [question, { role, content: [last] }, question] });
  return acts(messages({ ...one, ...change }), messages(one));
};
const text = (of: string) => ({ type: "text", text: of });

const counted: Record<string, Row> = {
  "messages.role": acts(
    { messages: [{ role: "assistant", content: "Say it." }, question] },
    { messages: [{ role: "user", content: "Say it." }, question] },
  ),
  "messages.content": acts({ messages: [{ role: "user", content: "Say more, please." }] }),
  "messages.content.text": block("user", text("a"), { text: "a city" }),
  "messages.content.cache_control.ttl": nothing(kept),
  "messages.content.citations": nothing("only null is taken"),
  "messages.content.tool_use_id": block("user", result, { tool_use_id: "2" }),
  "messages.content.content": block("user", result, { content: "much sun" }),
  "messages.content.content.text": block("user", { ...result, content: [text("a")] }, { content: [text("a city")] }),
  "messages.content.content.cache_control.ttl": nothing(kept),
  "messages.content.content.citations": nothing("only null is taken"),
  "messages.content.is_error": block("user", result, { is_error: true }),
  "messages.content.id": block("assistant", use, { id: "2" }),
  "messages.content.name": block("assistant", use, { name: "news" }),
  "messages.content.input": block("assistant", use, { input: { city: "Bern" } }),
  "messages.content.source.data": shown("pictures.test.ts", "%s: mlx-lm's tokens"),
  "messages.content.source.media_type": nothing("a picture's own bytes say what it is"),
  "messages.content.thinking": block("assistant", thought, { thinking: "a city" }),
  "messages.content.signature": nothing("clients send it back with a thought; nothing is signed here"),
  "messages.content.data": nothing("thoughts of another server, which only it can read"),
  system: acts({ system: "Be brief." }),
  "system.text": acts({ system: [text("Be brief.")] }, { system: [text("a")] }),
  "system.cache_control.ttl": nothing(kept),
  "system.citations": nothing("only null is taken"),
  "cache_control.ttl": nothing(kept),
  "tools.name": acts(offers({ name: "news" }), offers()),
  "tools.description": acts(offers({ description: "of a town" }), offers()),
  "tools.input_schema": acts(offers({ input_schema: { type: "object" } }), offers()),
  "tools.cache_control.ttl": nothing(kept),
  tool_choice: acts({ tool_choice: { type: "none" } }, offers()),
  thinking: acts({ thinking: { type: "adaptive" } }),
  "output_config.effort": acts({ output_config: { effort: "high" } }),
};
export const messages: Route = {
  path: "/v1/messages",
  schema: MessagesRequest,
  usual: { model: "m", max_tokens: 12, messages: [{ role: "user", content: "Say it." }] },
  fields: {
    ...counted,
    model: acts({ model: "other" }),
    "tools.strict": refuses(400, offers({ ...unheld, strict: true }), offers(unheld)),
    max_tokens: acts({ max_tokens: 3 }),
    stream: acts({ stream: true }),
    temperature: acts({ temperature: 1 }),
    top_p: acts({ top_p: 1 }, { temperature: 1, top_p: 0.0001 }),
    top_k: acts({ top_k: 0 }, { temperature: 1, top_k: 1 }),
    stop_sequences: acts(
      { stop_sequences: [" r"] },
      { output_config: { format: { type: "json_schema", schema: { const: "left right" } } }, max_tokens: 60 },
    ),
    "output_config.format.schema": acts({ output_config: { format: { type: "json_schema", schema: { const: 1 } } } }),
    "tool_choice.name": acts(
      { tool_choice: { type: "tool", name: "news" } },
      { ...two, tool_choice: { type: "tool", name: "weather" }, max_tokens: 200 },
    ),
    "tool_choice.disable_parallel_tool_use": shown(
      "routes/anthropic/messages.test.ts",
      "disable_parallel_tool_use leaves one call",
    ),
    "thinking.budget_tokens": acts(
      { thinking: { type: "enabled", budget_tokens: 2 } },
      {
        ...{ messages: [question, { role: "assistant", content: "<think>Well," }], max_tokens: 30 },
        thinking: { type: "enabled", budget_tokens: 1000 },
      },
    ),
    "metadata.user_id": acts({ metadata: { user_id: "someone" } }),
    service_tier: nothing("there is one tier"),
  },
};

const afterwards = "the prompt is counted, not what follows it";

export const counts: Route = {
  path: "/v1/messages/count_tokens",
  schema: CountRequest,
  usual: { model: "m", messages: [{ role: "user", content: "Say it." }] },
  fields: {
    ...counted,
    model: shown("models/models.test.ts", "of several, each gets its own, and others are told that there is none"),
    "tools.strict": nothing(afterwards),
    "tool_choice.name": nothing(afterwards),
    "tool_choice.disable_parallel_tool_use": nothing(afterwards),
    "thinking.budget_tokens": nothing(afterwards),
    "output_config.format.schema": nothing(afterwards),
  },
};
