/** GET /health and /metrics: whether the engine is alive, not only HTTP; and figures. */
import type { Hono } from "hono";
import type { ServeContext } from "../context";

/** Seconds without a step, while there is work, after which the engine counts as lost. */
const longestSilence = 120;

export function healthRoutes(app: Hono, { models, metrics }: ServeContext): void {
  app.get("/health", (c) => {
    const engines = models.loaded.map(({ served: { name, scheduler } }) => ({
      model: name,
      running: scheduler.running,
      waiting: scheduler.waiting,
      seconds_since_step: Math.round(scheduler.silence * 10) / 10,
    }));
    const isAlive = engines.every(({ seconds_since_step }) => seconds_since_step < longestSilence);
    return c.json({ status: isAlive ? "ok" : "unavailable", engines }, isAlive ? 200 : 503);
  });
  app.get("/metrics", (c) => {
    return c.text(metrics.text(models), 200, { "content-type": "text/plain; version=0.0.4; charset=utf-8" });
  });
}
