/** POST /v1/completions: a text is gone on with. */
import type { Hono } from "hono";
import { z } from "zod";
import type { AnswerToken } from "../../../generate/answer";
import type { Tokenizer } from "../../../text/tokenizer";
import { invalid } from "../../api-error";
import { logAsker } from "../../askers";
import { parsed, readJsonBody } from "../../body";
import type { ServeContext } from "../../context";
import { penaltyOptions, samplerOptions, seedOf } from "../../fields";
import { checkGeneration, type End, type Generation, type Part } from "../../generation";
import type { ServedModel } from "../../models/served-model";
import { Session, sideBySide } from "../../session";
import { event, eventStream, streamed } from "../../sse";
import { openAiError } from "./errors";
import { finishReason, generatingFields, newId, seconds, usageOf } from "./fields";

const tokens = z.array(z.int().min(0)).min(1);

export const CompletionRequest = z.strictObject({
  ...generatingFields,
  /** A text, token ids, or several of either. */
  prompt: z.union([z.string(), tokens, z.array(z.string()).min(1).max(64), z.array(tokens).min(1).max(64)]),
  echo: z.boolean().optional(),
  /** How many likely tokens to tell beside each. */
  logprobs: z.int().min(0).max(20).optional(),
});

export type CompletionRequest = z.infer<typeof CompletionRequest>;

interface Prompt {
  tokens: readonly number[];
  text: string;
}

export function completionRoutes(app: Hono, context: ServeContext): void {
  app.post("/v1/completions", async ({ req }) => {
    const request = parsed(CompletionRequest, await readJsonBody(req.raw, context.limits));
    logAsker(context, req.raw, { user: request.user });
    const session = await Session.open(context, req.raw, request.model, { adapter: request.adapters });
    try {
      const prompts = await promptsOf(request.prompt, session.served);
      const { n = 1 } = request;
      const shared = {
        maxTokens: request.max_tokens ?? context.defaults.maxTokens,
        sampling: samplerOptions(request, context.defaults),
        penalties: penaltyOptions(request),
        stop: request.stop,
        logprobs: request.logprobs,
        takesApart: false,
      };
      const choices = prompts.flatMap((prompt) =>
        Array.from({ length: n }, (_, i) => ({
          prompt,
          generation: { ...shared, prompt: prompt.tokens, seed: seedOf(request, i) },
        })),
      );
      for (const { generation } of choices) checkGeneration(session.served, generation, choices.length);
      const reply = new CompletionReply(session, request, choices);
      if (request.stream) return reply.stream(context);
      const body = await reply.whole();
      session.end();
      return Response.json(body);
    } catch (error) {
      session.end();
      throw error;
    }
  });
}

async function promptsOf(given: CompletionRequest["prompt"], { tokenizer, model }: ServedModel): Promise<Prompt[]> {
  const list = typeof given === "string" ? [given] : typeof given[0] === "number" ? [given as number[]] : given;
  return Promise.all(
    (list as (string | number[])[]).map(async (one) => {
      if (typeof one === "string") return { text: one, tokens: await tokenizer.encode(one) };
      const foreign = one.find((id) => id >= model.vocabSize);
      if (foreign !== undefined)
        throw invalid(`"prompt" has token ${foreign}, which the model does not know`, "prompt");
      return { text: tokenizer.decode(one), tokens: one };
    }),
  );
}

interface Asked {
  prompt: Prompt;
  generation: Generation;
}

class CompletionReply {
  readonly #id = newId("cmpl-");
  readonly #created = seconds();

  constructor(
    private readonly session: Session,
    private readonly request: CompletionRequest,
    private readonly choices: readonly Asked[],
  ) {}

  #parts(): AsyncGenerator<[index: number, part: Part | End], void, void> {
    return sideBySide(this.choices.map(({ generation }) => this.session.generate(generation)));
  }

  #body(choices: object[], usage?: object): object {
    return {
      ...{ id: this.#id, object: "text_completion", created: this.#created },
      ...{ model: this.request.model ?? this.session.served.name, choices },
      ...(usage && { usage }),
    };
  }

  /** What stands before the answer's own text. */
  #start(index: number): string {
    return this.request.echo ? this.choices[index]!.prompt.text : "";
  }

  async whole(): Promise<object> {
    const said = this.choices.map((_, i) => ({
      text: this.#start(i),
      tokens: [] as AnswerToken[],
      end: null as End | null,
    }));
    for await (const [index, part] of this.#parts()) {
      const choice = said[index]!;
      choice.tokens.push(...(part.tokens ?? []));
      if (part.type === "end") choice.end = part;
      else if ("text" in part) choice.text += part.text;
    }
    const choices = said.map(({ text, tokens, end }, index) => ({
      index,
      text,
      logprobs: this.#logprobs(tokens, this.#start(index).length),
      finish_reason: finishReason(end!.finish_reason),
    }));
    return this.#body(choices, this.#usage(said.map(({ end }) => end!)));
  }

  /** Answers to one prompt read it once; a list has several. */
  #usage(ends: readonly End[]): object {
    const { n = 1 } = this.request;
    const each = Array.from({ length: ends.length / n }, (_, i) => usageOf(ends.slice(i * n, (i + 1) * n)));
    const sum = (value: (usage: (typeof each)[number]) => number) => each.reduce((all, one) => all + value(one), 0);
    return {
      prompt_tokens: sum((one) => one.prompt_tokens),
      completion_tokens: sum((one) => one.completion_tokens),
      total_tokens: sum((one) => one.total_tokens),
      prompt_tokens_details: { cached_tokens: sum((one) => one.prompt_tokens_details.cached_tokens) },
    };
  }

  #logprobs(tokens: readonly AnswerToken[], offset: number): object | null {
    if (this.request.logprobs === undefined) return null;
    const { tokenizer } = this.session.served;
    const count = this.request.logprobs;
    const texts = tokens.map(({ token }) => tokenizer.decode([token]));
    let at = offset;
    return {
      tokens: texts,
      token_logprobs: tokens.map(({ logprob }) => Math.max(logprob, -9999)),
      top_logprobs: count === 0 ? null : tokens.map(({ top }) => topOf(tokenizer, top.slice(0, count))),
      text_offset: texts.map((text) => {
        const here = at;
        at += text.length;
        return here;
      }),
    };
  }

  stream(context: ServeContext): Response {
    const { session } = this;
    const keepAlive = () => `: keepalive ${session.progress.done}/${session.progress.total}\n\n`;
    const options = { contentType: eventStream, keepAlive, interval: context.keepAliveInterval, onEnd: session.end };
    return streamed(this.#events(context), session.abort, options);
  }

  async *#events(context: ServeContext): AsyncGenerator<string, void, void> {
    const withUsage = this.request.stream_options?.include_usage === true;
    const offsets = this.choices.map((_, i) => this.#start(i).length);
    const chunk = (index: number, text: string, tokens: AnswerToken[] = [], reason: string | null = null) => {
      const logprobs = tokens.length > 0 ? this.#logprobs(tokens, offsets[index]!) : null;
      offsets[index]! += text.length;
      const choice = { index, text, logprobs, finish_reason: reason };
      return event({ ...this.#body([choice]), ...(withUsage && { usage: null }) });
    };
    const ends: End[] = [];
    try {
      if (this.request.echo) for (const [i, { prompt }] of this.choices.entries()) yield chunk(i, prompt.text);
      for await (const [index, part] of this.#parts()) {
        if (part.type === "end") {
          ends[index] = part;
          yield chunk(index, "", part.tokens, finishReason(part.finish_reason));
        } else if ("text" in part) yield chunk(index, part.text, part.tokens);
      }
      if (withUsage) yield event(this.#body([], this.#usage(ends)));
      yield event("[DONE]");
    } catch (error) {
      context.log("ERROR", `an answer failed: ${(error as Error).message}`);
      yield event(openAiError(error));
    }
  }
}

function topOf(tokenizer: Tokenizer, top: AnswerToken["top"]): Record<string, number> {
  return Object.fromEntries(top.map(({ token, logprob }) => [tokenizer.decode([token]), Math.max(logprob, -9999)]));
}
