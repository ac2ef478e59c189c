/** OpenAI's routes, field by field. */
import { ChatRequest } from "../../src/serve/routes/openai/chat-request";
import { CompletionRequest } from "../../src/serve/routes/openai/completions";
import { EmbeddingRequest } from "../../src/serve/routes/openai/embeddings";
import { acts, type Body, nothing, type Route, type Row, refuses, shown } from "./table";

const say = (content: unknown, role = "user", more: Body = {}) => ({ messages: [{ role, content, ...more }] });

/** A function on offer, with one thing changed. */
export const tool = (more: Body = {}) => ({
  type: "function",
  function: {
    name: "weather",
    description: "of a city",
    parameters: { type: "object", properties: { city: { type: "string", maxLength: 3 } }, required: ["city"] },
    ...more,
  },
});
const offers = (...tools: object[]) => ({ tools });

/** Parameters that no grammar holds to: only where a tool is strict that matters. */
export const unheld = { parameters: { not: {} } };

/** The fields of how tokens are chosen, and more that both routes have. */
const generating: Record<string, Row> = {
  model: acts({ model: "other" }),
  stream: acts({ stream: true }),
  "stream_options.include_usage": acts({ stream_options: { include_usage: true } }, { stream: true }),
  n: acts({ n: 2 }),
  max_tokens: acts({ max_tokens: 3 }),
  temperature: acts({ temperature: 0 }),
  top_p: acts({ top_p: 0.0001 }),
  top_k: acts({ top_k: 1 }),
  min_p: acts({ min_p: 1 }),
  xtc_probability: acts({ xtc_probability: 1 }, { xtc_threshold: 0.001 }),
  xtc_threshold: acts({ xtc_threshold: 0.001 }, { xtc_probability: 1, xtc_threshold: 0.5 }),
  seed: acts({ seed: 2 }),
  repetition_penalty: acts({ repetition_penalty: 100 }, { max_tokens: 60 }),
  presence_penalty: acts({ presence_penalty: 100 }, { max_tokens: 60 }),
  frequency_penalty: acts({ frequency_penalty: 100 }, { max_tokens: 60 }),
  ...Object.fromEntries(
    ["repetition", "presence", "frequency"].map((name) => [
      `${name}_context_size`,
      acts({ [`${name}_context_size`]: 60 }, { max_tokens: 60, [`${name}_penalty`]: 100, [`${name}_context_size`]: 1 }),
    ]),
  ),
  logit_bias: acts({ logit_bias: { 95: 100 } }),
  adapters: shown("models/adapters.test.ts", "different adapters and none, side by side, say what each says alone"),
  draft_model: nothing("names the draft model that the server has anyway: no other is taken"),
  user: acts({ user: "someone" }),
};

export const chat: Route = {
  path: "/v1/chat/completions",
  schema: ChatRequest,
  usual: { ...say("Say it."), max_tokens: 12, temperature: 1, seed: 1 },
  fields: {
    ...generating,
    stop: acts({ stop: " r" }, { guided_choice: ["left right"], max_tokens: 60 }),
    "messages.role": acts(say("Say it.", "assistant")),
    "messages.content": acts(say([{ type: "text", text: "Say more." }])),
    ...Object.fromEntries(
      [
        ["id", { id: "2" }],
        ["function.name", { function: { name: "news", arguments: "{}" } }],
        ["function.arguments", { function: { name: "weather", arguments: '{"city":"Bern"}' } }],
      ].map(([field, more]) => {
        const call = { id: "1", type: "function", function: { name: "weather", arguments: "{}" } };
        const called = (one: object) => say("", "assistant", { tool_calls: [one] });
        return [`messages.tool_calls.${field}`, acts(called({ ...call, ...(more as object) }), called(call))];
      }),
    ),
    max_completion_tokens: acts({ max_completion_tokens: 3 }),
    logprobs: acts({ logprobs: true }),
    top_logprobs: acts({ top_logprobs: 2 }, { logprobs: true }),
    "tools.function.name": acts(offers(tool({ name: "news" })), offers(tool())),
    "tools.function.description": acts(offers(tool({ description: "of a town" })), offers(tool())),
    "tools.function.parameters": acts(offers(tool({ parameters: { type: "object" } })), offers(tool())),
    "tools.function.strict": refuses(400, offers(tool({ ...unheld, strict: true })), offers(tool(unheld))),
    tool_choice: acts({ tool_choice: "none" }, offers(tool())),
    "tool_choice.function.name": acts(
      { tool_choice: { type: "function", function: { name: "news" } } },
      {
        ...offers(tool(), tool({ name: "news" })),
        ...{ tool_choice: { type: "function", function: { name: "weather" } }, max_tokens: 200 },
      },
    ),
    parallel_tool_calls: shown(
      "routes/openai/tools.test.ts",
      "parallel_tool_calls: false ends the answer behind the first",
    ),
    response_format: acts({ response_format: { type: "json_object" } }),
    "response_format.json_schema.schema": acts({
      response_format: { type: "json_schema", json_schema: { schema: { const: 1 } } },
    }),
    "response_format.json_schema.name": nothing("a label"),
    "response_format.json_schema.description": nothing("a label"),
    "response_format.json_schema.strict": nothing("every schema is held to"),
    guided_regex: acts({ guided_regex: "[a-c]{3}" }),
    guided_choice: acts({ guided_choice: ["yes", "no"] }),
    guided_grammar: acts({ guided_grammar: 'root ::= "yes"' }),
    reasoning_effort: acts({ reasoning_effort: "none" }),
    thinking_budget: acts({ thinking_budget: 2 }, { ...say("<think>Well,", "assistant"), max_tokens: 30 }),
    chat_template_kwargs: acts({ chat_template_kwargs: { flavour: "dry" } }),
    role_mapping: shown("routes/openai/chat.test.ts", "role_mapping says what stands before each role's text"),
    metadata: acts({ metadata: { case: "1" } }),
    safety_identifier: acts({ safety_identifier: "someone" }),
    prompt_cache_key: nothing("a hint: prompts are kept by what they say"),
    service_tier: nothing("there is one tier"),
    store: nothing("only false is taken: nothing is stored"),
    modalities: nothing("only text is taken"),
  },
};

export const completions: Route = {
  path: "/v1/completions",
  schema: CompletionRequest,
  usual: { prompt: "Once upon", max_tokens: 12, temperature: 1, seed: 1 },
  fields: {
    ...generating,
    stop: acts({ stop: "}" }, { logit_bias: { 95: 1e6 } }),
    prompt: acts({ prompt: [1, 2, 3] }),
    echo: acts({ echo: true }),
    logprobs: acts({ logprobs: 2 }),
  },
};

export const embeddings: Route = {
  path: "/v1/embeddings",
  schema: EmbeddingRequest,
  usual: { input: "a small fox" },
  fields: {
    model: acts({ model: "other" }),
    input: acts({ input: ["a small fox", "a bird"] }),
    encoding_format: acts({ encoding_format: "base64" }),
    dimensions: acts({ dimensions: 8 }),
    pooling: acts({ pooling: "last" }, { pooling: "mean" }),
    user: acts({ user: "someone" }),
  },
};
