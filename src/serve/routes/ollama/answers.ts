/** POST /api/chat and /api/generate: Ollama's API, by lines of JSON unless one object is asked for. */
import type { Hono } from "hono";
import type { ToolCall } from "../../../text/tools";
import { apiErrorOf, invalid } from "../../api-error";
import { parsed, readJsonBody } from "../../body";
import { prepareChat } from "../../chat";
import type { ServeContext } from "../../context";
import { checkGeneration, type End, type Generation, type Part } from "../../generation";
import { Session } from "../../session";
import { jsonLines, streamed } from "../../sse";
import { heldForm } from "../../structured";
import { withoutStrict } from "../openai/chat-request";
import { askedOf, formWish, GenerateRequest, marked, messagesOf, OllamaChatRequest, picturesOf } from "./request";

/** Nanoseconds, as this API counts time. */
const nano = (seconds: number) => Math.round(seconds * 1e9);

export function ollamaAnswers(app: Hono, context: ServeContext): void {
  app.post("/api/chat", async ({ req }) => {
    const request = parsed(OllamaChatRequest, await readJsonBody(req.raw, context.limits));
    const { messages = [], tools } = request;
    if (messages.length === 0)
      return loadOnly(context, req.raw, request, { message: { role: "assistant", content: "" } });
    const chat = { ...askedOf(request, context.defaults), ...messagesOf(messages), tools: tools?.map(withoutStrict) };
    return answered(
      context,
      req.raw,
      request,
      async (session) => {
        const form = await heldForm(session.served, formWish(request));
        return prepareChat(session.served, { ...chat, form }, context.defaults);
      },
      chatLine,
    );
  });

  app.post("/api/generate", async ({ req }) => {
    const request = parsed(GenerateRequest, await readJsonBody(req.raw, context.limits));
    const { prompt = "", system, raw } = request;
    if (prompt === "") return loadOnly(context, req.raw, request, { response: "" });
    if (raw && system !== undefined) throw invalid('"system" has no place in a "raw" prompt', "system");
    const pictures = picturesOf(request.images ?? [], "images");
    if (raw && pictures.length > 0) throw invalid('"images" have no place in a "raw" prompt', "images");
    const asked = askedOf(request, context.defaults);
    return answered(
      context,
      req.raw,
      request,
      async (session) => {
        const form = await heldForm(session.served, formWish(request));
        const messages = [
          ...(system ? [{ role: "system", content: system }] : []),
          { role: "user", content: marked(pictures, prompt) },
        ];
        if (!raw) return prepareChat(session.served, { ...asked, form, messages, pictures }, context.defaults);
        const { templateVariables: _, ...rest } = asked;
        const tokens = await session.served.tokenizer.encode(prompt);
        const generation = { ...rest, form, prompt: tokens, takesApart: false };
        checkGeneration(session.served, generation);
        return generation;
      },
      textLine,
    );
  });
}

type Asked = { model: string; stream?: boolean; keep_alive?: number };

/** A part as a field of a line. */
type Line = (part: Exclude<Part, { type: "end" }> | null) => object;

const chatLine: Line = (part) => {
  if (part === null) return { message: { role: "assistant", content: "" } };
  if (part.type === "thought") return { message: { role: "assistant", content: "", thinking: part.text } };
  if (part.type === "tool_calls")
    return { message: { role: "assistant", content: "", tool_calls: part.calls.map(callOf) } };
  return { message: { role: "assistant", content: part.text } };
};

const textLine: Line = (part) => {
  if (part === null || part.type === "tool_calls") return { response: "" };
  return part.type === "thought" ? { response: "", thinking: part.text } : { response: part.text };
};

function callOf({ id, name, arguments: json }: ToolCall): object {
  let args: unknown = {};
  try {
    args = JSON.parse(json);
  } catch {
    // NaN, as Python writes it: JSON has no word for it.
  }
  return { ...(id && { id }), function: { name, arguments: args } };
}

async function answered(
  context: ServeContext,
  raw: Request,
  request: Asked,
  prepare: (session: Session) => Promise<Generation>,
  line: Line,
): Promise<Response> {
  const began = performance.now();
  const session = await Session.open(context, raw, request.model, { keepAlive: request.keep_alive });
  const loaded = (performance.now() - began) / 1000;
  try {
    const generation = await prepare(session);
    const head = () => ({ model: request.model, created_at: new Date().toISOString() });
    const last = (end: End) => ({
      ...head(),
      ...line(null),
      done: true,
      ...figures(end, session.seconds + loaded, loaded),
    });
    const lines = async function* () {
      try {
        for await (const part of session.generate(generation)) {
          yield `${JSON.stringify(part.type === "end" ? last(part) : { ...head(), ...line(part), done: false })}\n`;
        }
      } catch (error) {
        context.log("ERROR", `an answer failed: ${(error as Error).message}`);
        yield `${JSON.stringify({ error: apiErrorOf(error).message })}\n`;
      }
    };
    // Its clients take no other bytes than lines of JSON: nothing keeps the connection alive but the answer.
    if (request.stream !== false)
      return streamed(lines(), session.abort, { contentType: jsonLines, onEnd: session.end });
    const whole = new Whole();
    for await (const part of session.generate(generation)) whole.add(line(part.type === "end" ? null : part), part);
    const body = { ...last(whole.end!), ...whole.said };
    session.end();
    return Response.json(body);
  } catch (error) {
    session.end();
    throw error;
  }
}

/** The lines of an answer as one. */
class Whole {
  readonly said: { message?: Record<string, unknown>; response?: string; thinking?: string } = {};
  end: End | null = null;

  add(line: { message?: Record<string, unknown>; response?: string; thinking?: string }, part: Part | End): void {
    if (part.type === "end") this.end = part;
    if (line.message) this.said.message = joined(this.said.message ?? {}, line.message);
    else Object.assign(this.said, joined({ ...this.said }, line));
  }
}

function joined(before: Record<string, unknown>, more: Record<string, unknown>): Record<string, unknown> {
  const sum = { ...before };
  for (const [key, value] of Object.entries(more)) {
    const known = sum[key];
    if (key === "role" || known === undefined) sum[key] = value;
    else if (Array.isArray(known)) sum[key] = [...known, ...(value as unknown[])];
    else sum[key] = `${known}${value}`;
  }
  return sum;
}

function figures(end: End, total: number, loading: number): object {
  const prompt = end.prompt_tps > 0 ? end.prompt_tokens / end.prompt_tps : 0;
  const generation = end.generation_tps > 0 ? end.generation_tokens / end.generation_tps : 0;
  return {
    done_reason: end.finish_reason === "length" ? "length" : "stop",
    total_duration: nano(total),
    load_duration: nano(loading),
    prompt_eval_count: end.prompt_tokens + end.cached_tokens,
    prompt_eval_duration: nano(prompt),
    eval_count: end.generation_tokens,
    eval_duration: nano(generation),
  };
}

/** A request without a prompt loads the model; with keep_alive 0 it unloads it. */
async function loadOnly(context: ServeContext, raw: Request, request: Asked, said: object): Promise<Response> {
  const head = { model: request.model, created_at: new Date().toISOString(), ...said, done: true };
  if (request.keep_alive === 0) {
    await context.models.unload(request.model);
    return Response.json({ ...head, done_reason: "unload" });
  }
  (await Session.open(context, raw, request.model, { keepAlive: request.keep_alive })).end();
  return Response.json({ ...head, done_reason: "load" });
}
