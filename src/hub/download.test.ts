/** Downloads over a bad line, from a hub in trouble, by several processes, and on a disk that is too small. */
import { describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { hubEnvironment } from "../../test/hub-environment";
import { commit, type HubRepo } from "../../test/hub-server";
import { until } from "../../test/until";
import { ExitCode, UserError } from "../errors";
import { fetchCard } from "./download";
import { type ResolveOptions, resolveModel } from "./resolve";

const hub = hubEnvironment();
const weights = new Uint8Array(300_000).map((_, i) => (i * 7) % 251);
const sha256 = createHash("sha256").update(weights).digest("hex");

const model = (extra: Partial<HubRepo> = {}): HubRepo => ({
  files: { "config.json": "{}", "tokenizer.json": '{"a": 1}', "model.safetensors": weights },
  large: ["model.safetensors"],
  ...extra,
});

const blobs = () => join(hub.cache, "models--org--name/blobs");

const parts = () =>
  existsSync(hub.cache)
    ? (readdirSync(hub.cache, { recursive: true }) as string[]).filter((name) => name.includes("incomplete"))
    : [];

/** Leaves the first bytes of the weights as another download would. */
function leave(bytes: number, owner = "", content = weights): string {
  mkdirSync(blobs(), { recursive: true });
  const path = join(blobs(), `${sha256}.${owner}0a1b2c3d.incomplete`);
  writeFileSync(path, content.slice(0, bytes));
  return path;
}

/** Downloads, and checks that all of it has arrived. */
async function succeed(options?: ResolveOptions): Promise<string> {
  const { path } = await resolveModel("org/name", options);
  expect(readdirSync(path).sort()).toEqual(["config.json", "model.safetensors", "tokenizer.json"]);
  expect(new Uint8Array(readFileSync(join(path, "model.safetensors")))).toEqual(weights);
  expect(parts()).toEqual([]);
  return path;
}

async function failure(options?: ResolveOptions): Promise<UserError> {
  const error = await resolveModel("org/name", options).then(
    () => null,
    (thrown) => thrown,
  );
  expect(error).toBeInstanceOf(UserError);
  expect((error as UserError).hint).toBeTruthy();
  process.env.HF_HUB_OFFLINE = "1";
  await expect(resolveModel("org/name", { ...options, signal: undefined })).rejects.toBeInstanceOf(UserError);
  delete process.env.HF_HUB_OFFLINE;
  return error as UserError;
}

const ranges = (seen: readonly { path: string; range: string | null }[]) =>
  seen.filter(({ path, range }) => path.endsWith("safetensors") && range !== "bytes=0-0").map(({ range }) => range);

describe("what an earlier download left of a file", () => {
  test("is continued", async () => {
    const { seen } = hub.serve({ "org/name": model() });
    leave(100_000);
    const progress: number[] = [];
    await succeed({ onProgress: ({ done }) => progress.push(done) });
    expect(ranges(seen)).toEqual(["bytes=100000-"]);
    expect(progress.at(-1)).toBe(weights.length + 2 + 8);
  });

  test("is all that there is to fetch", async () => {
    const { seen } = hub.serve({ "org/name": model() });
    leave(weights.length);
    await succeed();
    expect(ranges(seen)).toEqual([]);
  });

  for (const [name, extra] of [
    ["all of it comes anyway", { ignoresRanges: true }],
    ["the hub refuses the range", { refusesRanges: true }],
  ] as const) {
    test(`is thrown away where ${name}`, async () => {
      const { seen } = hub.serve({ "org/name": model(extra) });
      leave(100_000);
      const progress: number[] = [];
      await succeed({ onProgress: ({ done }) => progress.push(done) });
      expect(ranges(seen)[0]).toBe("bytes=100000-");
      expect(progress.at(-1)).toBe(weights.length + 2 + 8);
    });
  }

  test("is thrown away where it turns out to be wrong", async () => {
    const { seen } = hub.serve({ "org/name": model() });
    leave(100_000, "", new Uint8Array(weights.length));
    await succeed();
    expect(ranges(seen)).toEqual(["bytes=100000-", null]);
  });

  test("is thrown away where it is longer than the file", async () => {
    const { seen } = hub.serve({ "org/name": model() });
    leave(weights.length + 1, "", new Uint8Array(weights.length + 1));
    await succeed();
    expect(ranges(seen)).toEqual([null]);
  });

  test("is left alone while its process runs, and taken over when that has ended", async () => {
    hub.serve({ "org/name": model() });
    const machine = hostname().replace(/[^\w-]/g, "_");
    const ours = leave(100_000, `${machine}.${process.pid}.`);
    const elsewhere = leave(1000, "another-machine.1.");
    await resolveModel("org/name");
    expect(existsSync(ours) && existsSync(elsewhere)).toBe(true);

    const dead = Bun.spawnSync(["true"]).pid;
    const { seen } = hub.serve({ "org/name": model() });
    for (const path of [join(blobs(), sha256), join(hub.cache, "models--org--name/refs/main"), ours]) {
      Bun.spawnSync(["rm", path]);
    }
    leave(200_000, `${machine}.${dead}.`);
    const long = new Date(Date.now() - 3600_000);
    utimesSync(elsewhere, long, long);
    await succeed();
    expect(ranges(seen)).toEqual(["bytes=200000-"]);
  });

  test("that is a link is not followed", async () => {
    const { seen } = hub.serve({ "org/name": model() });
    mkdirSync(blobs(), { recursive: true });
    const elsewhere = join(hub.folder, "precious");
    writeFileSync(elsewhere, weights.slice(0, 1000));
    symlinkSync(elsewhere, join(blobs(), `${sha256}.0a1b2c3d.incomplete`));
    await resolveModel("org/name");
    expect(ranges(seen)).toEqual([null]);
    expect(readFileSync(elsewhere).length).toBe(1000);
  });
});

describe("a connection", () => {
  for (const fault of ["cuts", "hangUps"] as const) {
    test(`that ends early (${fault}) is made anew from there`, async () => {
      const { seen } = hub.serve({ "org/name": model({ [fault]: 2 }) });
      await succeed();
      expect(ranges(seen)).toEqual([null, "bytes=150000-", "bytes=225000-"]);
    });
  }

  test("that brings nothing more is given up, and made anew", async () => {
    process.env.HF_HUB_DOWNLOAD_TIMEOUT = "0.2";
    const { seen } = hub.serve({ "org/name": model({ stalls: 1 }) });
    await succeed();
    expect(ranges(seen)).toEqual([null, "bytes=150000-"]);
  });

  test("that is not answered is given up, and made anew", async () => {
    process.env.HF_HUB_DOWNLOAD_TIMEOUT = "0.1";
    const { seen } = hub.serve({ "org/name": model({ silences: 1 }) });
    await succeed();
    expect(ranges(seen)).toEqual([null, null]);
  });

  test("that ends within the list of files is an error that says so", async () => {
    process.env.HF_HUB_DOWNLOAD_TIMEOUT = "0.1";
    hub.serve({ "org/name": model({ stallsList: true }) });
    expect((await failure()).message).toMatch(/nothing came for 0.1 s/);
  });

  test("that is never answered is an error that says so", async () => {
    process.env.HF_HUB_DOWNLOAD_TIMEOUT = "0.02";
    const { seen } = hub.serve({ "org/name": model({ silences: 99 }) });
    const error = await failure();
    expect(error.message).toMatch(/nothing came for 0.02 s/);
    expect(ranges(seen).length).toBe(4);
  });

  test("that brings next to nothing each time ends in an error, and what came is kept", async () => {
    hub.serve({ "org/name": model({ cuts: 99 }) });
    leave(weights.length - 1);
    const error = await failure();
    expect(error.message).toMatch(/cut off after 299999 of 300000 bytes/);
    expect(parts().length).toBe(1);
  });

  test("that is interrupted leaves what came, for the next time", async () => {
    const slow = hub.serve({ "org/name": model({ slowly: 10 }) });
    const controller = new AbortController();
    const error = await failure({
      signal: controller.signal,
      onProgress: ({ done }) => done > 50_000 && controller.abort(),
    });
    expect(error).toMatchObject({ code: ExitCode.interrupted, hint: expect.stringContaining("continues") });
    expect(parts().length).toBe(1);
    slow.stop();
    const { seen } = hub.serve({ "org/name": model() });
    await succeed();
    expect(ranges(seen)[0]).toMatch(/^bytes=[1-9]\d+-$/);
  });

  test("that waits to be tried again can be interrupted", async () => {
    hub.serve({ "org/name": model({ busy: { times: 9, headers: { "Retry-After": "50" } } }) });
    const began = performance.now();
    const error = await failure({ signal: AbortSignal.timeout(100) });
    expect(error.code).toBe(ExitCode.interrupted);
    expect(performance.now() - began).toBeLessThan(10_000);
  });
});

describe("what arrives", () => {
  test("damaged is fetched once more", async () => {
    hub.serve({ "org/name": model({ damages: 1 }) });
    await succeed();
  });

  test("damaged again is an error, and nothing of it stays", async () => {
    hub.serve({ "org/name": model({ damages: 2 }) });
    expect((await failure()).message).toMatch(/model.safetensors of org\/name arrived damaged/);
    expect(parts()).toEqual([]);
    expect(existsSync(join(blobs(), sha256))).toBe(false);
  });

  test("beyond the promised size is not written", async () => {
    hub.serve({ "org/name": model({ surplus: true }) });
    expect((await failure()).message).toMatch(/300003 of 300000 bytes/);
  });

  test("small is checked by git's hash", async () => {
    hub.serve({ "org/name": model({ large: [], files: { ...model().files, "config.json": "{}" } }) });
    const path = await succeed();
    const oid = createHash("sha1").update("blob 2\0{}").digest("hex");
    expect(existsSync(join(path, "../../blobs", oid))).toBe(true);
  });

  test("replaces a blob of another size, and a link that leads nowhere", async () => {
    hub.serve({ "org/name": model() });
    await succeed();
    truncateSync(join(blobs(), sha256), 10);
    const snapshot = join(hub.cache, "models--org--name/snapshots", commit);
    Bun.spawnSync(["ln", "-sfn", "nowhere", join(snapshot, "config.json")]);
    await succeed();
    expect(readFileSync(join(snapshot, "config.json"), "utf8")).toBe("{}");
  });
});

describe("a hub that", () => {
  for (const [name, headers, wait] of [
    ["a time", { "Retry-After": "1" }, 1000],
    ["a date", { "Retry-After": new Date(Date.now() - 5000).toUTCString() }, 0],
    ["the rest of its window", { RateLimit: '"api";r=0;t=1' }, 1000],
  ] as const) {
    test(`asks to wait, naming ${name}, is heard`, async () => {
      const { seen } = hub.serve({ "org/name": model({ busy: { times: 1, headers } }) });
      await succeed();
      expect(seen[1]!.at - seen[0]!.at).toBeGreaterThanOrEqual(wait);
      expect(seen[1]!.at - seen[0]!.at).toBeLessThan(wait + 5000);
    });
  }

  test("asks to wait for long is an error that says how long", async () => {
    const { seen } = hub.serve({ "org/name": model({ busy: { times: 9, headers: { "Retry-After": "600" } } }) });
    expect(await failure()).toMatchObject({
      message: expect.stringContaining("600 s"),
      hint: expect.stringContaining("HF_TOKEN"),
    });
    expect(seen.length).toBe(1);
  });

  test("always has trouble is asked four times, at growing distances", async () => {
    const { seen } = hub.serve({ "org/name": model({ status: 503 }) });
    expect((await failure()).message).toMatch(/has trouble \(503\)/);
    const waits = seen.slice(1).map(({ at }, i) => at - seen[i]!.at);
    expect(waits.length).toBe(3);
    // A timer may be early by a millisecond.
    for (const [i, wait] of waits.entries()) expect(wait).toBeGreaterThan(200 * 2 ** i - 5);
  });

  test("knows the repo, but not the revision", async () => {
    hub.serve({ "org/name": model() });
    expect((await resolveModel("org/name", { revision: "v1" })).source).toBe("download");
    for (const revision of ["nightly", "f".repeat(40)]) {
      expect(await failure({ revision })).toMatchObject({
        message: `org/name has no revision ${revision}`,
        code: ExitCode.notFound,
      });
    }
  });

  test("asks for consent is an error with the repo's page", async () => {
    const { url } = hub.serve({ "org/name": model({ gated: true }) });
    const hint = `Accept the terms on the repo's page, ${url}/org/name. Then set HF_TOKEN to your token.`;
    expect(await failure()).toMatchObject({ code: ExitCode.auth, hint });
    process.env.HF_TOKEN = "hf_secret";
    expect((await failure()).hint).toMatch(/has not been let in/);
  });
});

test("several files are fetched at a time", async () => {
  const names = [1, 2, 3, 4].map((i) => `model-0000${i}-of-00004.safetensors`);
  const files = Object.fromEntries(names.map((name, i) => [name, weights.map((byte) => byte + i)]));
  const sending = { now: 0, most: 0 };
  hub.serve({ "org/name": { files: { "config.json": "{}", ...files }, large: names, slowly: 12, sending } });
  await resolveModel("org/name");
  expect(sending.most).toBeGreaterThan(1);
});

describe("the disk", () => {
  test("that is too small is named before anything is fetched", async () => {
    const { seen } = hub.serve({ "org/name": model({ claims: { "model.safetensors": 1e18 } }) });
    const error = await failure();
    expect(error.code).toBe(ExitCode.resources);
    expect(error.message).toMatch(/^org\/name needs 1000000000\.\d GB on .*, 9\d+\.\d GB more than are free there$/);
    expect(error.hint).toMatch(/^\d+\.\d GB are free\. Make room/);
    expect(seen.some(({ path }) => path.includes("/resolve/"))).toBe(false);
  });

  test.skipIf(process.getuid?.() === 0)("that may not be written is an error with a way out", async () => {
    hub.serve({ "org/name": model() });
    mkdirSync(hub.cache, { mode: 0o500 });
    expect(await failure()).toMatchObject({ code: ExitCode.resources });
    chmodSync(hub.cache, 0o700);
  });
});

describe("Xet storage", () => {
  const stored = () => hub.serve({ "org/name": model({ xet: true }) });

  test("is read by its own token", async () => {
    process.env.HF_TOKEN = "hf_secret";
    const { seen } = stored();
    await succeed();
    expect(seen.some(({ path }) => path.startsWith("/xet-token/"))).toBe(true);
  });

  test("continues what was left", async () => {
    process.env.HF_TOKEN = "hf_secret";
    stored();
    leave(123_456);
    const progress: number[] = [];
    await succeed({ onProgress: ({ done }) => progress.push(done) });
    expect(progress.at(-1)).toBe(weights.length + 2 + 8);
  });

  test("that brings nothing more is given up, and asked anew", async () => {
    process.env.HF_TOKEN = "hf_secret";
    process.env.HF_HUB_DOWNLOAD_TIMEOUT = "0.2";
    const { seen } = hub.serve({ "org/name": model({ xet: true, stalls: 1 }) });
    await succeed();
    // The hub itself sends none of it.
    expect(ranges(seen)).toEqual([]);
  });

  test("is passed by where the user says so", async () => {
    process.env.HF_HUB_DISABLE_XET = "1";
    const { seen } = stored();
    await succeed();
    expect(seen.some(({ path }) => path.startsWith("/xet-token/"))).toBe(false);
  });

  test("that refuses is passed by", async () => {
    const { seen } = stored();
    await succeed();
    expect(seen.some(({ path }) => path.startsWith("/xet-token/"))).toBe(true);
    expect(ranges(seen)).toEqual([null]);
  });
});

describe("the card", () => {
  const card = "---\nlicense: mit\n---\n";
  const carded = (extra: Partial<HubRepo> = {}) => ({
    "org/name": model({ ...extra, files: { ...model().files, "README.md": card } }),
  });

  test("comes with the files only where it is asked for", async () => {
    const { seen } = hub.serve(carded());
    const path = await succeed();
    await fetchCard("org/name", path);
    expect(readFileSync(join(path, "README.md"), "utf8")).toBe(card);
    const asked = seen.length;
    await fetchCard("org/name", path);
    expect(seen.length).toBe(asked);
  });

  test("is done without where there is none, the hub is in trouble, or the network is not to be used", async () => {
    hub.serve({ "org/name": model() });
    const path = await succeed();
    await fetchCard("org/name", path);
    const { seen } = hub.serve(carded({ status: 403 }));
    await fetchCard("org/name", path);
    expect(seen.length).toBe(1);
    process.env.HF_HUB_OFFLINE = "1";
    await fetchCard("org/name", path);
    await fetchCard("org/name", hub.folder);
    expect(seen.length).toBe(1);
    expect(existsSync(join(path, "README.md"))).toBe(false);
  });
});

describe("two processes", () => {
  const script = `
    const { resolveModel } = await import(${JSON.stringify(join(import.meta.dir, "resolve.ts"))});
    console.log((await resolveModel("org/name")).path);
    process.exit();`;
  const start = () => Bun.spawn(["bun", "-e", script], { env: { ...process.env }, stdout: "pipe", stderr: "inherit" });

  test("may fetch the same repo at once", async () => {
    hub.serve({ "org/name": model({ slowly: 3 }) });
    const both = [start(), start()];
    const paths = await Promise.all(both.map((child) => new Response(child.stdout).text()));
    expect(paths[0]!.trim()).toEndWith(commit);
    expect(paths[1]).toBe(paths[0]!);
    await succeed();
  });

  test("follow each other where the first is killed", async () => {
    const slow = hub.serve({ "org/name": model({ slowly: 20 }) });
    const child = start();
    const arrived = () => parts().some((name) => lstatSync(join(hub.cache, name)).size > 20_000);
    await until(arrived);
    child.kill("SIGKILL");
    await child.exited;
    expect(parts().length).toBe(1);
    slow.stop();
    const { seen } = hub.serve({ "org/name": model() });
    await succeed();
    expect(ranges(seen)[0]).toMatch(/^bytes=[1-9]\d+-$/);
  });
});
