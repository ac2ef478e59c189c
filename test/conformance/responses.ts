/** /v1/responses, field by field. What it only says again of a request counts for nothing. */
import { ResponsesRequest } from "../../src/serve/routes/responses/request";
import { tool, unheld } from "./openai";
import { acts, type Body, nothing, type Route, type Row, refuses, shown } from "./table";

const { function: weather } = tool();
const offered = { type: "function", ...weather };
const offers = (more: Body = {}) => ({ tools: [{ ...offered, ...more }] });
const space = (more: Body = {}) => ({ tools: [{ type: "namespace", name: "sky", tools: [{ ...offered, ...more }] }] });
const file = "routes/responses/responses.test.ts";

/** An item and the same one with something changed. */
const item = (one: Body, change: Body): Row => {
  const before = { role: "user", content: "Weather?" };
  return acts({ input: [before, { ...one, ...change }] }, { input: [before, one] });
};
const call = { type: "function_call", call_id: "1", name: "weather", arguments: "{}" };
const output = { type: "function_call_output", call_id: "1", output: "rain" };
const said = { type: "message", role: "user", content: "Name a city." };
const part = (text: string) => ({ content: [{ type: "input_text", text }] });

export const responses: Route = {
  path: "/v1/responses",
  schema: ResponsesRequest,
  usual: { input: "Say it.", max_output_tokens: 12, store: false },
  fields: {
    model: shown("models/models.test.ts", "of several, each gets its own, and others are told that there is none"),
    input: acts({ input: "Say more." }),
    "input.id": nothing("whose it is says the place in the list"),
    "input.status": nothing("items that come back are whole"),
    "input.phase": nothing("all that was said counts"),
    "input.role": item(said, { role: "developer" }),
    "input.content": item(said, { content: "Name a river." }),
    "input.content.text": item({ ...said, ...part("a") }, part("b")),
    "input.content.type": nothing("three names for text"),
    "input.content.image_url": shown("pictures.test.ts", "%s: mlx-lm's tokens"),
    "input.content.detail": nothing("only auto is taken: models have sizes of their own"),
    "input.content.annotations": nothing("comes back with what was said; templates have no place for it"),
    "input.content.logprobs": nothing("comes back with what was said; templates have no place for it"),
    "input.call_id": item(call, { call_id: "2" }),
    "input.name": item(call, { name: "news" }),
    "input.namespace": shown(file, "functions in a namespace are offered, and calls say where they belong"),
    "input.arguments": item(call, { arguments: '{"city":"Bern"}' }),
    "input.output": item(output, { output: "sun" }),
    "input.output.text": item(
      { ...output, output: [{ type: "input_text", text: "rain" }] },
      { output: [{ type: "input_text", text: "sun" }] },
    ),
    "input.output.type": nothing("three names for text"),
    "input.output.annotations": nothing("as those of what was said"),
    "input.output.logprobs": nothing("as those of what was said"),
    "input.summary.text": item(
      { type: "reasoning", summary: [{ type: "summary_text", text: "a" }] },
      { summary: [{ type: "summary_text", text: "b" }] },
    ),
    "input.encrypted_content": shown(file, "are items of their own, and come back as the conversation goes on"),
    instructions: acts({ instructions: "Be brief." }),
    stream: acts({ stream: true }),
    max_output_tokens: acts({ max_output_tokens: 3 }),
    temperature: acts({ temperature: 1 }),
    top_p: acts({ top_p: 1 }, { temperature: 1, top_p: 0.0001 }),
    top_logprobs: acts({ top_logprobs: 2 }),
    "tools.name": acts(offers({ name: "news" }), offers()),
    "tools.description": acts(offers({ description: "of a town" }), offers()),
    "tools.parameters": acts(offers({ parameters: { type: "object" } }), offers()),
    "tools.strict": refuses(400, offers({ ...unheld, strict: true }), offers(unheld)),
    "tools.tools.name": acts(space({ name: "news" }), space()),
    "tools.tools.description": acts(space({ description: "of a town" }), space()),
    "tools.tools.parameters": acts(space({ parameters: { type: "object" } }), space()),
    "tools.tools.strict": refuses(400, space({ ...unheld, strict: true }), space(unheld)),
    tool_choice: acts({ tool_choice: "none" }, offers()),
    "tool_choice.name": acts(
      { tool_choice: { type: "function", name: "news" } },
      {
        ...{ tools: [offered, { ...offered, name: "news" }], max_output_tokens: 200 },
        tool_choice: { type: "function", name: "weather" },
      },
    ),
    parallel_tool_calls: shown(file, "one call is enough where they are not to be parallel"),
    previous_response_id: shown(file, "is gone on with, read again, and forgotten"),
    store: shown(file, "that is not to be stored is not"),
    "reasoning.effort": acts({ reasoning: { effort: "none" } }),
    "reasoning.summary": nothing("thoughts come whole: there is nothing to sum up"),
    "text.format": acts({ text: { format: { type: "json_object" } } }),
    "text.format.schema": acts({ text: { format: { type: "json_schema", name: "x", schema: { const: 1 } } } }),
    "text.format.name": nothing("a label"),
    "text.format.description": nothing("a label"),
    "text.format.strict": nothing("every schema is held to"),
    include: acts({ include: ["message.output_text.logprobs"] }),
    truncation: nothing("only disabled is taken"),
    background: nothing("only false is taken"),
    service_tier: nothing("there is one tier"),
    metadata: acts({ metadata: { case: "1" } }),
    prompt_cache_key: nothing("a hint: prompts are kept by what they say"),
    safety_identifier: acts({ safety_identifier: "someone" }),
    user: acts({ user: "someone" }),
    client_metadata: acts({ client_metadata: { session: "1" } }),
  },
};
