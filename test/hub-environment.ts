/** For tests of what talks to the hub: variables of the environment of their own, and a loopback hub. */
import { afterAll, afterEach, beforeEach } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type HubRepo, type HubServer, startHub } from "./hub-server";
import type { HubUploads } from "./hub-uploads";

const variables = [
  "HF_ENDPOINT",
  "HF_HUB_CACHE",
  "HUGGINGFACE_HUB_CACHE",
  "HF_HUB_OFFLINE",
  "HF_TOKEN",
  "HUGGING_FACE_HUB_TOKEN",
  "HF_TOKEN_PATH",
  "HF_HOME",
  "HF_HUB_DOWNLOAD_TIMEOUT",
  "HF_HUB_DISABLE_XET",
  "MLXLM_USE_MODELSCOPE",
];

export interface HubEnvironment {
  /** A folder for the file's tests, removed after the last one. */
  readonly folder: string;
  /** The cache: for each test another one, empty. */
  readonly cache: string;
  /** Starts a hub, which the environment then names; it is stopped after the test. */
  serve(repos: Record<string, HubRepo>, uploads?: HubUploads): HubServer;
}

/** Call it once, at the top of a test file. */
export function hubEnvironment(): HubEnvironment {
  const folder = mkdtempSync(join(tmpdir(), "mlxlm-hub-"));
  const before = variables.map((name) => [name, process.env[name]] as const);
  const hubs: HubServer[] = [];
  let caches = 0;
  const environment = {
    folder,
    cache: "",
    serve(repos: Record<string, HubRepo>, uploads?: HubUploads) {
      const hub = startHub(repos, uploads);
      hubs.push(hub);
      process.env.HF_ENDPOINT = hub.url;
      return hub;
    },
  };
  beforeEach(() => {
    for (const name of variables) delete process.env[name];
    environment.cache = join(folder, `cache-${caches++}`);
    process.env.HF_HOME = join(folder, "home");
    process.env.HF_HUB_CACHE = environment.cache;
  });
  afterEach(() => {
    for (const hub of hubs.splice(0)) hub.stop();
    for (const [name, value] of before) {
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    }
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return environment;
}
