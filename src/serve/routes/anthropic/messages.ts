/** POST /v1/messages and /v1/messages/count_tokens: Anthropic's API. */
import type { Hono } from "hono";
import type { ToolCall } from "../../../text/tools";
import { logAsker } from "../../askers";
import { parsed, readJsonBody } from "../../body";
import { prepareChat, writeChat } from "../../chat";
import type { ServeContext } from "../../context";
import type { End, Generation, Part } from "../../generation";
import { Session } from "../../session";
import { event, eventStream, streamed } from "../../sse";
import { heldForm } from "../../structured";
import { ToldCalls } from "../../told-calls";
import { newId } from "../openai/fields";
import { anthropicError } from "./errors";
import { askedOf, CountRequest, chatOf, formWish, MessagesRequest } from "./request";

export function messageRoutes(app: Hono, context: ServeContext): void {
  app.post("/v1/messages", async ({ req }) => {
    const request = parsed(MessagesRequest, await readJsonBody(req.raw, context.limits));
    const chat = chatOf(request, context.defaults);
    const wish = formWish(request);
    logAsker(context, req.raw, { metadata: request.metadata });
    const session = await Session.open(context, req.raw, request.model);
    try {
      const form = await heldForm(session.served, wish);
      const generation = await prepareChat(session.served, { ...chat, form }, context.defaults);
      const reply = new MessageReply(session, request, generation);
      if (request.stream) return reply.stream(context);
      const body = await reply.whole();
      session.end();
      return Response.json(body);
    } catch (error) {
      session.end();
      throw error;
    }
  });

  app.post("/v1/messages/count_tokens", async ({ req }) => {
    const request = parsed(CountRequest, await readJsonBody(req.raw, context.limits));
    const session = await Session.open(context, req.raw, request.model);
    try {
      const { prompt } = await writeChat(session.served, askedOf(request), context.defaults);
      return Response.json({ input_tokens: prompt.length });
    } finally {
      session.end();
    }
  });
}

type Block =
  | { type: "thinking"; thinking: string; signature: string }
  | { type: "text"; text: string }
  | { type: "tool_use"; id: string; name: string; input: unknown };

/** Clients send it back with a thought; nothing is signed here. */
const signature = "mlxlm";

class MessageReply {
  readonly #id = newId("msg_");

  constructor(
    private readonly session: Session,
    private readonly request: MessagesRequest,
    private readonly generation: Generation,
  ) {}

  #message(content: Block[], reason: string | null, end?: End): object {
    return {
      ...{ id: this.#id, type: "message", role: "assistant", model: this.request.model, content },
      ...{ stop_reason: reason, stop_sequence: end?.stop_text ?? null, usage: this.#usage(end) },
    };
  }

  #usage(end?: End): object {
    const cached = end?.cached_tokens ?? 0;
    return {
      input_tokens: this.generation.prompt.length - cached,
      cache_creation_input_tokens: 0,
      cache_read_input_tokens: cached,
      output_tokens: end?.generation_tokens ?? 0,
    };
  }

  async whole(): Promise<object> {
    const content: Block[] = [];
    let end: End | undefined;
    for await (const part of this.session.generate(this.generation)) {
      if (part.type === "end") end = part;
      else add(content, part);
    }
    return this.#message(content, stopReason(end!), end);
  }

  stream(context: ServeContext): Response {
    const { session } = this;
    const keepAlive = () => named({ type: "ping" });
    const options = { contentType: eventStream, keepAlive, interval: context.keepAliveInterval, onEnd: session.end };
    return streamed(this.#events(context), session.abort, options);
  }

  async *#events(context: ServeContext): AsyncGenerator<string, void, void> {
    let index = -1;
    let open: Block["type"] | null = null;
    const delta = (delta: object) => named({ type: "content_block_delta", index, delta });
    const close = function* () {
      if (open === "thinking") yield delta({ type: "signature_delta", signature });
      if (open !== null) yield named({ type: "content_block_stop", index });
      open = null;
    };
    const start = function* (block: Block) {
      yield* close();
      index++;
      open = block.type;
      yield named({ type: "content_block_start", index, content_block: block });
    };
    const told = new ToldCalls();
    try {
      yield named({ type: "message_start", message: this.#message([], null) });
      for await (const part of this.session.generate({ ...this.generation, callPieces: true })) {
        for (const piece of told.add(part)) {
          if (piece.type === "start") yield* start({ type: "tool_use", id: idOf(piece), name: piece.name, input: {} });
          else if (piece.type === "arguments") {
            yield delta({ type: "input_json_delta", partial_json: piece.text });
          } else yield* close();
        }
        if (part.type === "thought") {
          if (open !== "thinking") yield* start({ type: "thinking", thinking: "", signature: "" });
          yield delta({ type: "thinking_delta", thinking: part.text });
        } else if (part.type === "text" || part.type === "malformed") {
          if (open !== "text") yield* start({ type: "text", text: "" });
          yield delta({ type: "text_delta", text: part.text });
        } else if (part.type === "end") {
          yield* close();
          const stopped = { stop_reason: stopReason(part), stop_sequence: part.stop_text ?? null };
          yield named({ type: "message_delta", delta: stopped, usage: this.#usage(part) });
        }
      }
      yield named({ type: "message_stop" });
    } catch (error) {
      context.log("ERROR", `an answer failed: ${(error as Error).message}`);
      yield event(anthropicError(error), "error");
    }
  }
}

const named = (data: { type: string } & Record<string, unknown>) => event(data, data.type);

const idOf = ({ id }: Pick<ToolCall, "id"> | { id: string | undefined }) => (id ? `toolu_${id}` : newId("toolu_"));

/** Adds a part to the blocks: to the last one, where it goes on with it. */
function add(content: Block[], part: Exclude<Part, { type: "end" }>): void {
  const last = content.at(-1);
  if (part.type === "tool_calls") {
    for (const call of part.calls)
      content.push({ type: "tool_use", id: idOf(call), name: call.name, input: inputOf(call) });
  } else if (part.type === "call_pieces") return;
  else if (part.type === "thought") {
    if (last?.type === "thinking") last.thinking += part.text;
    else content.push({ type: "thinking", thinking: part.text, signature });
  } else if (last?.type === "text") last.text += part.text;
  else content.push({ type: "text", text: part.text });
}

function inputOf(call: ToolCall): unknown {
  try {
    return JSON.parse(call.arguments);
  } catch {
    // NaN, as Python writes it: JSON has no word for it.
    return {};
  }
}

function stopReason({ finish_reason, stop_text }: End): string {
  if (finish_reason === "tool_calls") return "tool_use";
  if (finish_reason === "length") return "max_tokens";
  return stop_text === undefined ? "end_turn" : "stop_sequence";
}
