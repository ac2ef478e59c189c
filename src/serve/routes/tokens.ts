/** POST /tokenize and /detokenize: text to token ids and back, as llama.cpp's and vLLM's servers have it. */
import type { Hono } from "hono";
import { z } from "zod";
import { invalid } from "../api-error";
import { parsed, readJsonBody } from "../body";
import type { ServeContext } from "../context";
import { encodeChat } from "../generation";
import { Session } from "../session";

export const TokenizeRequest = z.strictObject({
  model: z.string().max(1000).optional(),
  /** The text; vLLM calls it prompt. */
  content: z.string().optional(),
  prompt: z.string().optional(),
  /** A chat, through its template. */
  messages: z.array(z.looseObject({ role: z.string(), content: z.string().nullish() })).optional(),
  add_special: z.boolean().optional(),
  add_special_tokens: z.boolean().optional(),
  /** Give each token's text too. */
  with_pieces: z.boolean().optional(),
});

export const DetokenizeRequest = z.strictObject({
  model: z.string().max(1000).optional(),
  tokens: z.array(z.int().min(0)),
});

export function tokenRoutes(app: Hono, context: ServeContext): void {
  app.post("/tokenize", async ({ req }) => {
    const request = parsed(TokenizeRequest, await readJsonBody(req.raw, context.limits));
    const { content, prompt, messages } = request;
    const given = [content, prompt, messages].filter((one) => one !== undefined);
    if (given.length !== 1) throw invalid('one of "content", "prompt" and "messages" must be given', "content");
    const session = await Session.open(context, req.raw, request.model);
    try {
      const { tokenizer, contextLength } = session.served;
      const addSpecialTokens = request.add_special ?? request.add_special_tokens ?? prompt !== undefined;
      const tokens = messages
        ? await encodeChat(session.served, messages)
        : await tokenizer.encode(content ?? prompt!, { addSpecialTokens });
      const listed = request.with_pieces ? tokens.map((id) => ({ id, piece: tokenizer.decode([id]) })) : tokens;
      return Response.json({ tokens: listed, count: tokens.length, max_model_len: contextLength });
    } finally {
      session.end();
    }
  });

  app.post("/detokenize", async ({ req }) => {
    const request = parsed(DetokenizeRequest, await readJsonBody(req.raw, context.limits));
    const session = await Session.open(context, req.raw, request.model);
    try {
      const { tokenizer, model } = session.served;
      const foreign = request.tokens.find((id) => id >= model.vocabSize);
      if (foreign !== undefined) throw invalid(`there is no token ${foreign} in the model`, "tokens");
      const content = tokenizer.decode(request.tokens);
      return Response.json({ content, prompt: content });
    } finally {
      session.end();
    }
  });
}
