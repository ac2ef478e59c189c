/** Ollama's routes, field by field. */
import { ShowRequest } from "../../src/serve/routes/ollama/models";
import { EmbedRequest, GenerateRequest, OllamaChatRequest } from "../../src/serve/routes/ollama/request";
import { tool, unheld } from "./openai";
import { acts, type Body, type Route, type Row, refuses, shown } from "./table";

const usualOptions = { num_predict: 12, temperature: 1, seed: 1 };
/** An option, beside others than the usual ones where they are told. */
const option = (change: Body, of: Body = {}): Row =>
  acts({ options: { ...usualOptions, ...of, ...change } }, { options: { ...usualOptions, ...of } });

const keepAlive = shown("routes/ollama/ollama.test.ts", "are listed, shown, loaded and unloaded");

const shared: Record<string, Row> = {
  model: acts({ model: "other" }),
  stream: acts({ stream: true }),
  format: acts({ format: { const: 1 } }),
  "options.num_predict": option({ num_predict: 3 }),
  "options.temperature": option({ temperature: 0 }),
  "options.top_k": option({ top_k: 1 }),
  "options.top_p": option({ top_p: 0.0001 }),
  "options.min_p": option({ min_p: 1 }),
  "options.seed": option({ seed: 2 }),
  "options.stop": acts(
    { options: { ...usualOptions, num_predict: 60, stop: [" r"] } },
    { options: { ...usualOptions, num_predict: 60 }, format: { const: "left right" } },
  ),
  "options.repeat_penalty": option({ repeat_penalty: 100 }, { num_predict: 60 }),
  "options.repeat_last_n": option({ repeat_last_n: 0 }, { num_predict: 60, repeat_penalty: 100 }),
  "options.presence_penalty": option({ presence_penalty: 100 }, { num_predict: 60 }),
  "options.frequency_penalty": option({ frequency_penalty: 100 }, { num_predict: 60 }),
  "options.num_ctx": option({ num_ctx: 150 }, { num_predict: 300 }),
  keep_alive: keepAlive,
  think: acts({ think: true }),
};

const question = { role: "user", content: "Weather?" };
/** A message, and the same one with something changed. */
const message = (one: Body, change: Body): Row =>
  acts({ messages: [question, { ...one, ...change }, question] }, { messages: [question, one, question] });
const calls = (more: Body = {}, outer: Body = {}) => ({
  tool_calls: [{ ...outer, function: { name: "weather", arguments: {}, ...more } }],
});
const called = { role: "assistant", content: "", ...calls() };
const offers = (more: Body = {}) => ({ tools: [tool(more)] });

export const chat: Route = {
  path: "/api/chat",
  schema: OllamaChatRequest,
  usual: { model: "m", messages: [question], stream: false, options: usualOptions },
  fields: {
    ...shared,
    "messages.role": message(question, { role: "system" }),
    "messages.content": message(question, { content: "And tomorrow?" }),
    "messages.thinking": message({ role: "assistant", content: "a" }, { thinking: "a city" }),
    "messages.images": shown("pictures.test.ts", "Ollama's chat and prompt: pictures stand ahead of the text"),
    "messages.tool_name": message({ role: "tool", content: "rain" }, { tool_name: "weather" }),
    "messages.tool_call_id": message({ role: "tool", content: "rain" }, { tool_call_id: "1" }),
    "messages.tool_calls.id": message(called, calls({}, { id: "1" })),
    "messages.tool_calls.function.index": message(called, calls({ index: 1 })),
    "messages.tool_calls.function.name": message(called, calls({ name: "news" })),
    "messages.tool_calls.function.description": message(called, calls({ description: "of a city" })),
    "messages.tool_calls.function.arguments": message(called, calls({ arguments: { city: "Bern" } })),
    "tools.function.name": acts(offers({ name: "news" }), offers()),
    "tools.function.description": acts(offers({ description: "of a town" }), offers()),
    "tools.function.parameters": acts(offers({ parameters: { type: "object" } }), offers()),
    "tools.function.strict": refuses(400, offers({ ...unheld, strict: true }), offers(unheld)),
  },
};

export const generate: Route = {
  path: "/api/generate",
  schema: GenerateRequest,
  usual: { model: "m", prompt: "Weather?", stream: false, options: usualOptions },
  fields: {
    ...shared,
    prompt: acts({ prompt: "And tomorrow?" }),
    system: acts({ system: "Be brief." }),
    raw: acts({ raw: true }),
    images: shown("pictures.test.ts", "Ollama's chat and prompt: pictures stand ahead of the text"),
  },
};

export const embed: Route = {
  path: "/api/embed",
  schema: EmbedRequest,
  usual: { model: "m", input: "a small fox" },
  fields: {
    model: acts({ model: "other" }),
    input: acts({ input: "a bird" }),
    truncate: refuses(400, { truncate: false }, { input: "fox ".repeat(3000) }),
    dimensions: acts({ dimensions: 8 }),
    keep_alive: keepAlive,
  },
};

export const show: Route = {
  path: "/api/show",
  schema: ShowRequest,
  usual: { model: "m" },
  fields: {
    model: shown("models/models.test.ts", "of several, each gets its own, and others are told that there is none"),
    verbose: acts({ verbose: true }),
  },
};
