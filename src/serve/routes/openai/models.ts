/** GET /v1/models and /v1/models/NAME */
import type { Hono } from "hono";
import { ApiError } from "../../api-error";
import type { ServeContext } from "../../context";
import { seconds } from "./fields";

export function modelRoutes(app: Hono, { models }: ServeContext): void {
  const created = seconds();
  const cardOf = (name: string) => {
    const loaded = models.loaded.find(({ served }) => served.name === name)?.served;
    return {
      ...{ id: name, object: "model", created, owned_by: "mlxlm" },
      // Anthropic's names for the same.
      ...{ type: "model", display_name: name, created_at: new Date(created * 1000).toISOString() },
      ...(loaded?.contextLength && { context_length: loaded.contextLength }),
      loaded: loaded !== undefined,
    };
  };
  app.get("/v1/models", async (c) => {
    const data = (await models.list()).map(({ name }) => cardOf(name));
    const ends = { first_id: data.at(0)?.id ?? null, last_id: data.at(-1)?.id ?? null };
    return c.json({ object: "list", data, has_more: false, ...ends });
  });
  // Names of repos have a slash.
  app.get("/v1/models/:name{.+}", async (c) => {
    const name = c.req.param("name");
    if ((await models.list()).some((one) => one.name === name)) return c.json(cardOf(name));
    throw new ApiError(404, `the model ${JSON.stringify(name)} is not served here`, {
      param: "model",
      code: "model_not_found",
    });
  });
}
