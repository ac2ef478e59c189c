/** A server in this process, on the demo model or on one that says what it is told to. */
import { demoFolder } from "../src/demo/folder";
import type { OpenedModel } from "../src/generate/open-model";
import { openModel } from "../src/generate/open-model";
import type { ServeContext } from "../src/serve/context";
import { MemoryBudget } from "../src/serve/engine/memory-budget";
import { Guard, type GuardOptions } from "../src/serve/guard";
import { leveledLog } from "../src/serve/log";
import { Metrics } from "../src/serve/metrics";
import { Models, type ModelsOptions } from "../src/serve/models/models";
import { type RunningServer, startServer } from "../src/serve/server";
import { type EngineSettings, engineDefaults, type RequestDefaults, requestDefaults } from "../src/serve/settings";

export interface TestServerOptions {
  open?: () => Promise<OpenedModel>;
  models?: Partial<ModelsOptions>;
  settings?: Partial<EngineSettings>;
  defaults?: Partial<RequestDefaults>;
  guard?: Partial<GuardOptions>;
  maxBody?: number;
  bodyTimeout?: number;
  headerTimeout?: number;
  keepAliveInterval?: number;
}

export interface TestServer extends RunningServer {
  context: ServeContext;
  log: string[];
  post(path: string, body: unknown, init?: RequestInit): Promise<Response>;
  stop(): Promise<void>;
}

export function testServer(options: TestServerOptions = {}): TestServer {
  const log: string[] = [];
  const { open = () => openModel(demoFolder()), keepAliveInterval } = options;
  const { maxBody = 1e6, bodyTimeout = 5, headerTimeout = 10 } = options;
  const models = new Models({
    open,
    budget: new MemoryBudget(),
    settings: { ...engineDefaults, ...options.settings },
    main: { name: "demo", open: "demo" },
    ...options.models,
  });
  const context: ServeContext = {
    models,
    defaults: { ...requestDefaults, ...options.defaults },
    limits: { maxBody, bodyTimeout },
    guard: new Guard({ apiKeys: [], allowedOrigins: [], allowedHosts: [], ...options.guard }),
    metrics: new Metrics(),
    log: leveledLog("DEBUG", (line) => void log.push(line)),
    version: "0.0.0",
    keepAliveInterval,
  };
  const server = startServer(context, { host: "127.0.0.1", port: 0, headerTimeout });
  return {
    ...server,
    context,
    log,
    post: (path, body, init = {}) =>
      fetch(server.url + path, {
        ...init,
        method: "POST",
        headers: { "content-type": "application/json", ...init.headers },
        body: typeof body === "string" ? body : JSON.stringify(body),
      }),
    stop: () => server.drain(0),
  };
}
