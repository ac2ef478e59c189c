/** What Ollama's API tells of models: /api/tags, /api/show, /api/ps, /api/version; and /api/embed. */
import type { Hono } from "hono";
import { z } from "zod";
import { parsed, readJsonBody } from "../../body";
import type { ServeContext } from "../../context";
import { embed } from "../../embedding";
import type { ServedModel } from "../../models/served-model";
import { Session } from "../../session";
import { EmbedRequest } from "./request";

export const ShowRequest = z.strictObject({ model: z.string().max(1000), verbose: z.boolean().optional() });

export function ollamaModels(app: Hono, context: ServeContext): void {
  const { models } = context;
  const started = new Date().toISOString();
  const loadedAs = (name: string) => models.loaded.find(({ served }) => served.name === name)?.served;
  const cardOf = (name: string, size: number) => ({
    ...{ name, model: name, modified_at: started, size, digest: digestOf(name) },
    details: detailsOf(loadedAs(name)),
  });

  app.get("/api/version", (c) => c.json({ version: context.version }));

  app.get("/api/tags", async (c) => {
    const listed = await models.list();
    const sizes = await Promise.all(listed.map((one) => loadedAs(one.name)?.nbytes ?? models.sizeOf(one)));
    return c.json({ models: listed.map(({ name }, i) => cardOf(name, sizes[i]!)) });
  });

  app.get("/api/ps", (c) =>
    c.json({
      models: models.loaded.map(({ served, expires }) => ({
        ...cardOf(served.name, served.nbytes),
        // For ever is a year that no one will see.
        expires_at: (expires ?? new Date("2318-01-01")).toISOString(),
        size_vram: served.nbytes,
        context_length: served.contextLength ?? 0,
      })),
    }),
  );

  app.post("/api/show", async ({ req }) => {
    const request = parsed(ShowRequest, await readJsonBody(req.raw, context.limits));
    const session = await Session.open(context, req.raw, request.model);
    try {
      const { served } = session;
      const family = familyOf(served);
      const capabilities = [
        "completion",
        ...(served.tokenizer.toolFormat ? ["tools"] : []),
        ...(served.tokenizer.thinking ? ["thinking"] : []),
        ...(served.model.images ? ["vision"] : []),
      ];
      return Response.json({
        ...{ modelfile: "", parameters: "", template: "", license: "" },
        details: detailsOf(served),
        model_info: {
          "general.architecture": family,
          ...(served.contextLength && { [`${family}.context_length`]: served.contextLength }),
          ...(request.verbose && { config: served.config }),
        },
        capabilities,
        modified_at: started,
      });
    } finally {
      session.end();
    }
  });

  app.post("/api/embed", async ({ req }) => {
    const request = parsed(EmbedRequest, await readJsonBody(req.raw, context.limits));
    const began = performance.now();
    const session = await Session.open(context, req.raw, request.model, { keepAlive: request.keep_alive });
    const loaded = performance.now() - began;
    try {
      const { served, signal } = session;
      const texts = typeof request.input === "string" ? [request.input] : request.input;
      const encoded = await Promise.all(texts.map((text) => served.tokenizer.encode(text)));
      const most = request.truncate === false ? undefined : (served.contextLength ?? undefined);
      const { vectors, tokens } = await embed(
        served,
        encoded.map((one) => one.slice(0, most)),
        request,
        signal,
      );
      return Response.json({
        model: request.model,
        embeddings: vectors.map((vector) => [...vector]),
        total_duration: Math.round((performance.now() - began) * 1e6),
        load_duration: Math.round(loaded * 1e6),
        prompt_eval_count: tokens,
      });
    } finally {
      session.end();
    }
  });
}

const digestOf = (name: string) => new Bun.CryptoHasher("sha256").update(name).digest("hex");

const familyOf = ({ config }: ServedModel) => (typeof config.model_type === "string" ? config.model_type : "unknown");

function detailsOf(served: ServedModel | undefined): object {
  const family = served ? familyOf(served) : "";
  const bits = (served?.config.quantization as { bits?: number } | undefined)?.bits;
  return {
    ...{ parent_model: "", format: "safetensors", family, families: family === "" ? null : [family] },
    parameter_size: "",
    quantization_level: bits === undefined ? "" : `${bits}-bit`,
  };
}
