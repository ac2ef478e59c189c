/** All routes behind their guards, and errors in each API's own shape. */
import { Hono } from "hono";
import { UserError } from "../errors";
import { ApiError, apiErrorOf } from "./api-error";
import type { ServeContext } from "./context";
import { anthropicError } from "./routes/anthropic/errors";
import { messageRoutes } from "./routes/anthropic/messages";
import { healthRoutes } from "./routes/health";
import { ollamaAnswers } from "./routes/ollama/answers";
import { ollamaModels } from "./routes/ollama/models";
import { chatRoutes } from "./routes/openai/chat";
import { completionRoutes } from "./routes/openai/completions";
import { embeddingRoutes } from "./routes/openai/embeddings";
import { openAiError } from "./routes/openai/errors";
import { modelRoutes } from "./routes/openai/models";
import { pagePaths, pageRoutes } from "./routes/page";
import { responseRoutes } from "./routes/responses/responses";
import { tokenRoutes } from "./routes/tokens";

/** What is answered without a key: nothing of it tells of models or of what is asked. */
const open = new Set([...pagePaths, "/health"]);

export function serverApp(context: ServeContext): Hono {
  const { guard, log, metrics } = context;
  const app = new Hono();
  app.use(async (c, next) => {
    const { headers } = c.req.raw;
    guard.checkHost(headers);
    const origin = guard.checkOrigin(headers);
    if (c.req.method === "OPTIONS") {
      // A page that may not ask has been refused already.
      if (origin === null) throw new ApiError(405, "OPTIONS is for pages of other origins");
      return c.body(null, 204, { ...corsHeaders(origin), ...preflightHeaders });
    }
    if (!open.has(c.req.path)) guard.checkKey(headers);
    await next();
    if (origin !== null)
      for (const [name, value] of Object.entries(corsHeaders(origin))) c.res.headers.set(name, value);
    metrics.request(c.req.routePath, c.res.status);
  });
  chatRoutes(app, context);
  completionRoutes(app, context);
  modelRoutes(app, context);
  embeddingRoutes(app, context);
  responseRoutes(app, context);
  messageRoutes(app, context);
  ollamaAnswers(app, context);
  ollamaModels(app, context);
  tokenRoutes(app, context);
  pageRoutes(app);
  healthRoutes(app, context);
  app.notFound((c) => respond(new ApiError(404, `there is no ${c.req.method} ${c.req.path}`), c.req.path));
  app.onError((error, c) => {
    const { status, message, facts } = apiErrorOf(error);
    const more = status >= 500 ? behind(facts.cause) : "";
    log(status >= 500 ? "ERROR" : "INFO", `${c.req.method} ${c.req.path} ${status} ${message}${more}`);
    metrics.request(c.req.routePath, status);
    const response = respond(error, c.req.path);
    const origin = c.req.header("origin");
    if (origin && status !== 403) {
      for (const [name, value] of Object.entries(corsHeaders(origin))) response.headers.set(name, value);
    }
    return response;
  });
  return app;
}

/** What the log says beside a failure's message: the next step of a known one, and where an unknown one comes from. */
function behind(cause: unknown): string {
  if (cause instanceof UserError) return cause.hint ? `. ${cause.hint}` : "";
  return cause instanceof Error ? `: ${cause.stack ?? cause.message}` : "";
}

const corsHeaders = (origin: string) => ({ "access-control-allow-origin": origin, vary: "Origin" });

const preflightHeaders = {
  "access-control-allow-methods": "GET, POST, DELETE, OPTIONS",
  "access-control-allow-headers": "*, Authorization",
  "access-control-max-age": "600",
};

function respond(error: unknown, path: string): Response {
  const { status, facts } = apiErrorOf(error);
  const headers: Record<string, string> = {};
  if (facts.retryAfter !== undefined) headers["retry-after"] = String(facts.retryAfter);
  if (status === 401) headers["www-authenticate"] = "Bearer";
  return Response.json(errorBody(error, path), { status, headers });
}

/** Each API has its own shape. */
function errorBody(error: unknown, path: string): object {
  if (path.startsWith("/api/")) return { error: apiErrorOf(error).message };
  return path.startsWith("/v1/messages") ? anthropicError(error) : openAiError(error);
}
