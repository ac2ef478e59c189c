/** /v1/responses: OpenAI's newer API, in which answers are items and a conversation can be kept here. */
import type { Hono } from "hono";
import { apiErrorOf } from "../../api-error";
import { logAsker } from "../../askers";
import { parsed, readJsonBody } from "../../body";
import { prepareChat } from "../../chat";
import type { ServeContext } from "../../context";
import type { End, Generation } from "../../generation";
import { Session } from "../../session";
import { event, eventStream, streamed } from "../../sse";
import { heldForm } from "../../structured";
import { newId, seconds } from "../openai/fields";
import { logprobEntries } from "../openai/logprobs";
import { Output, type OutputEvent } from "./output";
import { chatOf, formWish, type Item, itemsOf, namespaceOf, ResponsesRequest } from "./request";
import { ResponseStore } from "./store";

export function responseRoutes(app: Hono, context: ServeContext): void {
  const store = new ResponseStore();
  app.post("/v1/responses", async ({ req }) => {
    const request = parsed(ResponsesRequest, await readJsonBody(req.raw, context.limits));
    const { previous_response_id: before } = request;
    const earlier = before === undefined ? null : store.get(before, "previous_response_id");
    const items = [...(earlier ? [...earlier.input, ...earlier.output] : []), ...itemsOf(request)];
    const chat = chatOf(request, items, context.defaults);
    const wish = formWish(request);
    const { user, metadata, safety_identifier, client_metadata } = request;
    logAsker(context, req.raw, { user, metadata, safety_identifier, client_metadata });
    const session = await Session.open(context, req.raw, request.model);
    try {
      const form = await heldForm(session.served, wish);
      const generation = await prepareChat(session.served, { ...chat, form }, context.defaults);
      const reply = new ResponseReply(session, request, generation, items, store);
      if (request.stream) return reply.stream(context);
      const body = await reply.whole();
      session.end();
      return Response.json(body);
    } catch (error) {
      session.end();
      throw error;
    }
  });
  app.get("/v1/responses/:id", (c) => c.json(store.get(c.req.param("id")).response));
  app.delete("/v1/responses/:id", (c) => {
    const id = c.req.param("id");
    store.get(id);
    store.delete(id);
    return c.json({ id, object: "response", deleted: true });
  });
  app.get("/v1/responses/:id/input_items", (c) => {
    const { input } = store.get(c.req.param("id"));
    const data = input.map((item, i) => ({ id: `item_${i}`, ...item }));
    return c.json({ object: "list", data, has_more: false, first_id: "item_0", last_id: `item_${data.length - 1}` });
  });
}

class ResponseReply {
  readonly #id = newId("resp_");
  readonly #created = seconds();
  readonly #output: Output;

  constructor(
    private readonly session: Session,
    private readonly request: ResponsesRequest,
    private readonly generation: Generation,
    private readonly items: readonly Item[],
    private readonly store: ResponseStore,
  ) {
    const { tokenizer } = session.served;
    this.#output = new Output({
      packsThoughts: request.include?.includes("reasoning.encrypted_content") ?? false,
      logprobsOf: (tokens) => logprobEntries(tokenizer, tokens, generation.logprobs ?? 0),
      namespaceOf: (tool) => namespaceOf(request, tool),
    });
  }

  async whole(): Promise<object> {
    for await (const { type, response } of this.#events()) if (isLast(type)) return response as object;
    throw new Error("an answer has no end");
  }

  stream(context: ServeContext): Response {
    const { session } = this;
    const keepAlive = () => `: keepalive ${session.progress.done}/${session.progress.total}\n\n`;
    const options = { contentType: eventStream, keepAlive, interval: context.keepAliveInterval, onEnd: session.end };
    return streamed(this.#numbered(context), session.abort, options);
  }

  async *#numbered(context: ServeContext): AsyncGenerator<string, void, void> {
    let sequence_number = 0;
    try {
      for await (const one of this.#events()) yield event({ ...one, sequence_number: sequence_number++ }, one.type);
    } catch (error) {
      context.log("ERROR", `an answer failed: ${(error as Error).message}`);
      const { message, facts } = apiErrorOf(error);
      const response = this.#response("failed", { error: { code: facts.code ?? "server_error", message } });
      yield event({ type: "response.failed", response, sequence_number }, "response.failed");
    }
  }

  async *#events(): AsyncGenerator<OutputEvent, void, void> {
    yield { type: "response.created", response: this.#response("in_progress") };
    yield { type: "response.in_progress", response: this.#response("in_progress") };
    let end: End | null = null;
    for await (const part of this.session.generate({ ...this.generation, callPieces: this.request.stream === true })) {
      if (part.type === "end") end = part;
      else yield* this.#output.add(part);
    }
    yield* this.#output.end();
    const isWhole = end!.finish_reason !== "length";
    const status = isWhole ? "completed" : "incomplete";
    const response = this.#response(status, {
      incomplete_details: isWhole ? null : { reason: "max_output_tokens" },
      usage: await this.#usage(end!),
    });
    if (this.request.store !== false) this.store.put({ response, input: this.items, output: this.#output.asInput });
    yield { type: `response.${status}`, response };
  }

  async #usage({ prompt_tokens, cached_tokens, generation_tokens }: End): Promise<object> {
    const { thoughts } = this.#output;
    const { tokenizer } = this.session.served;
    const thought = thoughts === "" ? [] : await tokenizer.encode(thoughts, { addSpecialTokens: false });
    return {
      input_tokens: prompt_tokens + cached_tokens,
      input_tokens_details: { cached_tokens },
      output_tokens: generation_tokens,
      output_tokens_details: { reasoning_tokens: thought.length },
      total_tokens: prompt_tokens + cached_tokens + generation_tokens,
    };
  }

  #response(status: string, more: object = {}): { id: string } & Record<string, unknown> {
    const { request } = this;
    return {
      ...{ id: this.#id, object: "response", created_at: this.#created, status, error: null, incomplete_details: null },
      instructions: request.instructions ?? null,
      max_output_tokens: request.max_output_tokens ?? null,
      metadata: request.metadata ?? {},
      model: request.model ?? this.session.served.name,
      output: this.#output.items,
      parallel_tool_calls: request.parallel_tool_calls ?? true,
      previous_response_id: request.previous_response_id ?? null,
      reasoning: { effort: request.reasoning?.effort ?? null, summary: request.reasoning?.summary ?? null },
      store: request.store ?? true,
      temperature: request.temperature ?? null,
      text: { format: request.text?.format ?? { type: "text" } },
      tool_choice: request.tool_choice ?? "auto",
      tools: request.tools ?? [],
      top_p: request.top_p ?? null,
      truncation: "disabled",
      usage: null,
      user: request.user ?? null,
      ...more,
    };
  }
}

const isLast = (type: string) => type === "response.completed" || type === "response.incomplete";
