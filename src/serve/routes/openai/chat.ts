/** POST /v1/chat/completions */
import type { Hono } from "hono";
import type { AnswerToken } from "../../../generate/answer";
import type { ToolCall } from "../../../text/tools";
import { logAsker } from "../../askers";
import { parsed, readJsonBody } from "../../body";
import { prepareChat } from "../../chat";
import type { ServeContext } from "../../context";
import type { End, Generation, Part } from "../../generation";
import { Session, sideBySide } from "../../session";
import { event, eventStream, streamed } from "../../sse";
import { heldForm } from "../../structured";
import { type CallEvent, ToldCalls } from "../../told-calls";
import { ChatRequest, chatOf, formWish } from "./chat-request";
import { openAiError } from "./errors";
import { finishReason, newId, seconds, usageOf } from "./fields";
import { logprobEntries } from "./logprobs";

export function chatRoutes(app: Hono, context: ServeContext): void {
  const handler = async ({ req }: { req: { raw: Request } }) => {
    const request = parsed(ChatRequest, await readJsonBody(req.raw, context.limits));
    const chat = chatOf(request, context.defaults);
    const wish = formWish(request);
    const { user, metadata, safety_identifier } = request;
    logAsker(context, req.raw, { user, metadata, safety_identifier });
    const session = await Session.open(context, req.raw, request.model, { adapter: request.adapters });
    try {
      const { n = 1 } = request;
      const form = await heldForm(session.served, wish);
      const isSingle = request.parallel_tool_calls === false;
      const generation = await prepareChat(session.served, { ...chat, form, isSingle }, context.defaults, n);
      const reply = new ChatReply(session, request, generation);
      if (request.stream) return reply.stream(context);
      const body = await reply.whole();
      session.end();
      return Response.json(body);
    } catch (error) {
      session.end();
      throw error;
    }
  };
  app.post("/v1/chat/completions", handler);
  app.post("/chat/completions", handler);
}

class ChatReply {
  readonly #id = newId("chatcmpl-");
  readonly #created = seconds();

  constructor(
    private readonly session: Session,
    private readonly request: ChatRequest,
    private readonly generation: Generation,
  ) {}

  get #model(): string {
    return this.request.model ?? this.session.served.name;
  }

  /** What the choices say, as it comes. */
  #parts(): AsyncGenerator<[index: number, part: Part | End], void, void> {
    const { n = 1 } = this.request;
    const { seed } = this.generation;
    const answers = Array.from({ length: n }, (_, i) =>
      this.session.generate({
        ...this.generation,
        callPieces: this.request.stream === true,
        seed: seed === undefined ? undefined : seed + i,
      }),
    );
    return sideBySide(answers);
  }

  async whole(): Promise<object> {
    const choices = Array.from({ length: this.request.n ?? 1 }, () => new Choice());
    for await (const [index, part] of this.#parts()) choices[index]!.add(part);
    return {
      id: this.#id,
      object: "chat.completion",
      created: this.#created,
      model: this.#model,
      system_fingerprint: fingerprint,
      choices: choices.map((choice, index) => ({
        index,
        message: choice.message(),
        logprobs:
          this.generation.logprobs === undefined ? null : { content: this.#logprobs(choice.tokens), refusal: null },
        finish_reason: finishReason(choice.end!.finish_reason),
      })),
      usage: usageOf(choices.map(({ end }) => end!)),
    };
  }

  stream(context: ServeContext): Response {
    const { session } = this;
    const keepAlive = () => `: keepalive ${session.progress.done}/${session.progress.total}\n\n`;
    const options = { contentType: eventStream, keepAlive, interval: context.keepAliveInterval, onEnd: session.end };
    return streamed(this.#events(context), session.abort, options);
  }

  async *#events(context: ServeContext): AsyncGenerator<string, void, void> {
    const { n = 1, stream_options } = this.request;
    const withUsage = stream_options?.include_usage === true;
    const chunk = (choices: object[], usage?: object) =>
      event({
        ...{ id: this.#id, object: "chat.completion.chunk", created: this.#created, model: this.#model },
        ...{ system_fingerprint: fingerprint, choices },
        ...(withUsage && { usage: usage ?? null }),
      });
    const delta = (index: number, delta: object, tokens?: AnswerToken[], reason: string | null = null) => {
      const logprobs = tokens && tokens.length > 0 ? { content: this.#logprobs(tokens), refusal: null } : null;
      return chunk([{ index, delta, logprobs, finish_reason: reason }]);
    };
    const ends: End[] = [];
    const told = Array.from({ length: n }, () => new ToldCalls());
    try {
      for (let i = 0; i < n; i++) yield delta(i, { role: "assistant", content: "" });
      for await (const [index, part] of this.#parts()) {
        let tokens = part.tokens;
        for (const piece of told[index]!.add(part)) {
          if (piece.type === "end") continue;
          yield delta(index, { tool_calls: [callDelta(piece)] }, tokens);
          tokens = undefined;
        }
        if (part.type === "end") {
          ends.push(part);
          yield delta(index, {}, tokens, finishReason(part.finish_reason));
        } else if (part.type === "thought") {
          yield delta(index, { reasoning_content: part.text, reasoning: part.text }, part.tokens);
        } else if (part.type === "text" || part.type === "malformed") {
          yield delta(index, { content: part.text }, part.tokens);
        }
      }
      if (withUsage) yield chunk([], usageOf(ends));
      yield event("[DONE]");
    } catch (error) {
      context.log("ERROR", `an answer failed: ${(error as Error).message}`);
      yield event(openAiError(error));
    }
  }

  #logprobs(tokens: readonly AnswerToken[]): object[] {
    return logprobEntries(this.session.served.tokenizer, tokens, this.generation.logprobs ?? 0);
  }
}

/** mlx-lm's is its versions and its platform; ours is of the same use: it changes where numbers may. */
const fingerprint = `mlxlm-${process.platform}-${process.arch}`;

/** What is new of a call. */
function callDelta(event: Exclude<CallEvent, { type: "end" }>): object {
  const { index } = event;
  if (event.type === "arguments") return { index, function: { arguments: event.text } };
  const id = event.id ?? newId("call_");
  return { index, id, type: "function", function: { name: event.name, arguments: "" } };
}

/** What one choice has said. */
class Choice {
  readonly tokens: AnswerToken[] = [];
  end: End | null = null;
  #text = "";
  #thoughts = "";
  readonly #calls: ToolCall[] = [];

  add(part: Part | End): void {
    this.tokens.push(...(part.tokens ?? []));
    if (part.type === "end") this.end = part;
    else if (part.type === "tool_calls") this.#calls.push(...part.calls);
    else if (part.type === "thought") this.#thoughts += part.text;
    else this.#text += part.text;
  }

  message(): object {
    const calls = this.#calls.map((call) => ({
      id: call.id ?? newId("call_"),
      type: "function",
      function: { name: call.name, arguments: call.arguments },
    }));
    return {
      role: "assistant",
      content: this.#text === "" && (calls.length > 0 || this.#thoughts !== "") ? null : this.#text,
      refusal: null,
      ...(this.#thoughts !== "" && { reasoning_content: this.#thoughts, reasoning: this.#thoughts }),
      ...(calls.length > 0 && { tool_calls: calls }),
    };
  }
}
