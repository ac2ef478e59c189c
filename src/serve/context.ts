/** What routes work with. */
import type { BodyLimits } from "./body";
import type { Guard } from "./guard";
import type { Log } from "./log";
import type { Metrics } from "./metrics";
import type { Models } from "./models/models";
import type { RequestDefaults } from "./settings";

export interface ServeContext {
  models: Models;
  defaults: RequestDefaults;
  limits: BodyLimits;
  guard: Guard;
  metrics: Metrics;
  log: Log;
  version: string;
  /** Seconds without news after which a stream sends bytes that keep it alive. */
  keepAliveInterval?: number;
}
