/** POST /v1/embeddings */
import type { Hono } from "hono";
import { z } from "zod";
import { logAsker } from "../../askers";
import { parsed, readJsonBody } from "../../body";
import type { ServeContext } from "../../context";
import { embed } from "../../embedding";
import { Session } from "../../session";

const tokens = z.array(z.int().min(0)).min(1);

export const EmbeddingRequest = z.strictObject({
  model: z.string().max(1000).optional(),
  input: z.union([z.string(), tokens, z.array(z.string()).min(1).max(2048), z.array(tokens).min(1).max(2048)]),
  encoding_format: z.enum(["float", "base64"]).optional(),
  dimensions: z.int().min(1).max(1e6).optional(),
  /** How states are pooled. */
  pooling: z.enum(["mean", "last"]).optional(),
  user: z.string().max(1000).optional(),
});

export function embeddingRoutes(app: Hono, context: ServeContext): void {
  app.post("/v1/embeddings", async ({ req }) => {
    const request = parsed(EmbeddingRequest, await readJsonBody(req.raw, context.limits));
    logAsker(context, req.raw, { user: request.user });
    const session = await Session.open(context, req.raw, request.model);
    try {
      const { served, signal } = session;
      const { input } = request;
      const list = typeof input === "string" ? [input] : typeof input[0] === "number" ? [input as number[]] : input;
      const encode = (one: string | number[]) => (typeof one === "string" ? served.tokenizer.encode(one) : one);
      const inputs = await Promise.all((list as (string | number[])[]).map(encode));
      const { vectors, pooling, tokens } = await embed(served, inputs, request, signal);
      const written = (vector: Float32Array) =>
        request.encoding_format === "base64" ? Buffer.from(vector.buffer).toString("base64") : [...vector];
      return Response.json({
        object: "list",
        data: vectors.map((vector, index) => ({ object: "embedding", index, embedding: written(vector) })),
        model: request.model ?? served.name,
        pooling,
        usage: { prompt_tokens: tokens, total_tokens: tokens },
      });
    } finally {
      session.end();
    }
  });
}
