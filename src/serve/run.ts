/** A server from what the operator asked for to its end. */
import { demoName } from "../demo/folder";
import { ExitCode, UserError } from "../errors";
import { openModel } from "../generate/open-model";
import { leastOf } from "../generate/ranks/alike";
import { ranksLost } from "../generate/ranks/lost";
import { tellEnd } from "../generate/ranks/orders";
import { inTurn } from "../generate/ranks/turns";
import * as mx from "../mlx";
import { isLaunched } from "../mlx/group-environment";
import { ApiError } from "./api-error";
import { cachedModel, cachedModels, opener, weightBytes } from "./catalogue";
import type { ServeContext } from "./context";
import { MemoryBudget } from "./engine/memory-budget";
import type { ReadServerFlags } from "./flags";
import { Guard } from "./guard";
import { type LogLevel, leveledLog } from "./log";
import { Metrics } from "./metrics";
import { Models } from "./models/models";
import { PrefixFiles } from "./prefixes/prefix-files";
import { startServer } from "./server";
import type { EngineSettings, RequestDefaults } from "./settings";

export interface RunOptions extends ReadServerFlags {
  model?: string;
  adapterPath?: string;
  chatTemplate?: string;
  draftModel?: string;
  /** Among several processes, give each some layers. */
  pipeline?: boolean;
  /** Load models' own draft layers too. */
  draftHead?: boolean;
  /** Where prompts are kept over restarts. */
  promptCacheDir?: string;
  /** Bytes. */
  maxMemory?: number;
  address: { host: string; port: number };
  defaults: RequestDefaults;
  settings: EngineSettings;
  logLevel: LogLevel;
  version: string;
}

export interface RunEvents {
  log(line: string): void;
  warn(line: string): void;
  onListening(url: string, model: string): void;
  /** Ends the server: it takes no more requests, and those that run may finish. */
  signal: AbortSignal;
}

/** Seconds for the whole body of a request, and for a connection that says nothing. */
const bodyTimeout = 60;
const headerTimeout = 30;

/** Seconds that running answers get when the server is to end. */
const grace = 30;

/** Runs until the signal. @throws UserError where the model cannot be opened, or the address not be had */
export async function runServer(
  options: RunOptions,
  { log: write, warn, onListening, signal }: RunEvents,
): Promise<void> {
  const { model, adapterPath, chatTemplate, draftModel, maxMemory, address, settings, promptCacheDir } = options;
  const { pipeline } = options;
  const log = leveledLog(options.logLevel, write);
  // Answers without a seed of their own differ from start to start.
  mx.random.seed(crypto.getRandomValues(new Uint32Array(1))[0]!);
  const isNamed = model !== undefined;
  const isClosed = isNamed || options.allowed.length > 0 || isLaunched();
  const name = model ?? (options.allowed.length > 0 ? undefined : demoName);
  const main = name === undefined ? undefined : { name, open: name, adapterPath };
  const models = new Models({
    open: opener({
      ...{ chatTemplate, draftHead: options.draftHead, pipeline, warn, onDownload: progressLog(log) },
      movesCaches: promptCacheDir !== undefined,
    }),
    size: (source) => weightBytes(source, { pipeline }),
    budget: new MemoryBudget(leastOf(new MemoryBudget(maxMemory).limit)),
    ...{ settings, main, allowed: options.allowed, adapters: options.adapters, keepAlive: options.keepAlive },
    ...(!isClosed && { find: cachedModel, others: cachedModels }),
    ...(promptCacheDir !== undefined && {
      prefixFiles: new PrefixFiles(promptCacheDir, options.version, (problem) => log("WARNING", problem)),
    }),
    onRest: () => mx.releaseMemory(),
    ...(draftModel !== undefined && { draft: () => openModel(draftModel, { warn, onAllOrNone: true }) }),
    onEvent: ({ type, model, seconds }) =>
      log("INFO", `${type} ${model}${seconds === undefined ? "" : ` in ${seconds.toFixed(1)} s`}`),
  });
  const context: ServeContext = {
    ...{ models, log, defaults: options.defaults, version: options.version },
    limits: { maxBody: options.maxBody, bodyTimeout },
    guard: new Guard(options),
    metrics: new Metrics(),
  };
  // What is wrong with the model is said before anyone asks.
  if (main) {
    const lease = await models.lease(main.name).catch((error) => {
      if (isLaunched()) tellEnd();
      throw asUserError(error);
    });
    lease.release();
  }
  const server = listening(context, address);
  const ended = new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve()));
  onListening(server.url, name ?? options.allowed.map((one) => one.name).join(", "));
  if (!signal.aborted) await Promise.race([ended, engineLoss(models, signal), ranksLost]);
  log("INFO", `ending: running answers have ${grace} seconds`);
  await server.drain(grace);
  // What is being loaded for nobody any more comes to its end first.
  if (isLaunched()) await inTurn(tellEnd);
}

/** Seconds between two looks at the engine, and of silence after which it is lost. */
const look = 30;
const longestSilence = 300;

/** Fails where the engine has had work, and given no sign of life, in two looks: whoever watches starts it again. */
async function engineLoss(models: Models, signal: AbortSignal): Promise<void> {
  for (let silent = 0; silent < 2 && !signal.aborted; ) {
    await new Promise<void>((resolve) => setTimeout(resolve, look * 1000).unref());
    const isSilent = models.loaded.some(({ served }) => served.scheduler.silence > longestSilence);
    silent = isSilent ? silent + 1 : 0;
  }
  if (signal.aborted) return;
  throw new UserError(`the engine has given no sign of life for ${longestSilence} seconds`, {
    hint: "Start the server again. If it comes back: this is a defect of mlxlm.",
  });
}

/** At the start it is the operator who is told, not a client. */
function asUserError(error: unknown): unknown {
  if (!(error instanceof ApiError)) return error;
  if (error.facts.cause instanceof UserError) return error.facts.cause;
  return new UserError(error.message, {
    code: ExitCode.resources,
    hint: "Take a smaller model, or raise --max-memory.",
  });
}

function listening(context: ServeContext, { host, port }: { host: string; port: number }) {
  try {
    return startServer(context, { host, port, headerTimeout });
  } catch (error) {
    const { code } = error as { code?: string };
    const taken = code === "EADDRINUSE";
    throw new UserError(
      taken ? `port ${port} of ${host} is taken` : `${host}:${port} cannot be listened on: ${(error as Error).message}`,
      {
        code: ExitCode.usage,
        hint: taken ? "Take another one: --port 0 takes one that is free." : "Check --host and --port.",
        cause: error,
      },
    );
  }
}

/** A line every 10 % of a download. */
function progressLog(log: ServeContext["log"]): (model: string, done: number, total: number) => void {
  let last = -1;
  return (model, done, total) => {
    const tenth = Math.floor((10 * done) / total);
    if (tenth === last) return;
    last = tenth;
    log("INFO", `downloading ${model}: ${tenth * 10} %`);
  };
}
