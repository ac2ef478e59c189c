import { describe, expect, test } from "bun:test";
import { existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { hubEnvironment } from "../../test/hub-environment";
import { type HubRepo, startHub } from "../../test/hub-server";
import { ExitCode, UserError } from "../errors";
import { resolveModel } from "./resolve";

const hub = hubEnvironment();
const temporary = hub.folder;

const weights = new Uint8Array(300_000).map((_, i) => (i * 7) % 251);

const model = (extra: Partial<HubRepo> = {}): HubRepo => ({
  files: {
    "config.json": "{}",
    "tokenizer.json": '{"a": 1}',
    "model.safetensors": weights,
    "README.md": "not needed",
    "original/params.json": "not needed either",
  },
  large: ["model.safetensors"],
  ...extra,
});

async function failure(name: string): Promise<UserError> {
  const error = await resolveModel(name).then(
    () => null,
    (thrown) => thrown,
  );
  expect(error).toBeInstanceOf(UserError);
  return error as UserError;
}

/** Nothing half-written may lie about. */
function leftovers(): string[] {
  const cache = hub.cache;
  return existsSync(cache)
    ? (readdirSync(cache, { recursive: true }) as string[]).filter((name) => name.includes("incomplete"))
    : [];
}

describe("a local path", () => {
  test("is taken as it is", async () => {
    expect(await resolveModel(temporary)).toEqual({ path: temporary, source: "local" });
  });

  test("that is a file, or is not there, is an error", async () => {
    const path = join(temporary, "file");
    writeFileSync(path, "");
    expect((await failure(path)).message).toMatch(/is a file/);
    expect(await failure("./not/here")).toMatchObject({
      message: "there is no folder ./not/here",
      code: ExitCode.notFound,
    });
    expect((await failure("a/b/c")).code).toBe(ExitCode.notFound);
    expect((await failure("../x-that-is-not-there")).message).toMatch(/no folder/);
    expect((await failure("bad name!")).message).toMatch(/neither a folder/);
  });
});

describe("a repo", () => {
  test("is downloaded into the cache that Python shares, then found there", async () => {
    const server = hub.serve({ "org/name": model() });
    const progress: number[] = [];
    const first = await resolveModel("org/name", { onProgress: ({ done }) => progress.push(done) });
    expect(first).toMatchObject({ source: "download", repo: "org/name" });
    const repo = join(hub.cache, "models--org--name");
    expect(first.path.startsWith(join(repo, "snapshots"))).toBe(true);
    expect(readdirSync(first.path).sort()).toEqual(["config.json", "model.safetensors", "tokenizer.json"]);
    expect(lstatSync(join(first.path, "model.safetensors")).isSymbolicLink()).toBe(true);
    expect(new Uint8Array(readFileSync(join(first.path, "model.safetensors")))).toEqual(weights);
    expect(readFileSync(join(repo, "refs/main"), "utf8")).toBe(first.path.split("/").at(-1)!);
    expect(progress.at(-1)).toBe(weights.length + 2 + 8);
    expect(leftovers()).toEqual([]);

    expect(server.seen.every(({ authorization }) => authorization === null)).toBe(true);
    server.stop();
    expect(await resolveModel("org/name")).toEqual({ path: first.path, source: "cache", repo: "org/name" });
    process.env.HF_HUB_OFFLINE = "1";
    expect((await resolveModel("org/name")).source).toBe("cache");
  });

  for (const word of ["true", "True"]) {
    test(`that is to come from ModelScope (${word}) is refused with a way out, cached or not`, async () => {
      const server = hub.serve({ "org/name": model() });
      await resolveModel("org/name");
      const asked = server.seen.length;
      process.env.MLXLM_USE_MODELSCOPE = word;
      expect(await failure("org/name")).toMatchObject({
        code: ExitCode.notFound,
        hint: expect.stringContaining("modelscope download --model org/name"),
      });
      expect(server.seen.length).toBe(asked);
      expect((await resolveModel(temporary)).source).toBe("local");
      process.env.MLXLM_USE_MODELSCOPE = "false";
      expect((await resolveModel("org/name")).source).toBe("cache");
    });
  }

  test.each(["../x", "a/../../b", "", "a b", ".hidden", "x.lock"])("of a revision %p is refused", async (revision) => {
    const server = hub.serve({ "org/name": model() });
    await expect(resolveModel("org/name", { revision })).rejects.toThrow(/is not the name of a branch/);
    expect(server.seen).toEqual([]);
  });

  test("offline and not in the cache", async () => {
    const server = hub.serve({ "org/name": model() });
    process.env.HF_HUB_OFFLINE = "1";
    expect(await failure("org/name")).toMatchObject({ code: ExitCode.notFound });
    expect(server.seen).toEqual([]);
  });

  test.each([
    [401, ExitCode.auth, /does not exist, or is private/],
    [403, ExitCode.auth, /gated/],
    [404, ExitCode.notFound, /there is no repo/],
  ])("that the hub answers with %d", async (status, code, message) => {
    hub.serve({ "org/name": model({ status }) });
    const error = await failure("org/name");
    expect(error.code).toBe(code);
    expect(error.message).toMatch(message);
    expect(error.hint).toBeTruthy();
  });

  test("is tried again after errors of the server", async () => {
    hub.serve({ "org/name": model({ failures: 2 }) });
    expect((await resolveModel("org/name")).source).toBe("download");
  });

  test("gets the token; another host that it points to does not", async () => {
    const other = startHub({ "org/name": model() });
    const server = hub.serve({ "org/name": model({ redirectTo: other.url }) });
    process.env.HF_TOKEN = "hf_secret";
    await resolveModel("org/name");
    expect(server.seen.every(({ authorization }) => authorization === "Bearer hf_secret")).toBe(true);
    expect(other.seen.length).toBeGreaterThan(0);
    expect(other.seen.every(({ authorization }) => authorization === null)).toBe(true);
    other.stop();
  });

  test("takes a token of any form, but none that cannot be sent", async () => {
    const server = hub.serve({ "org/name": model({ xet: true }) });
    process.env.HF_TOKEN = "glpat-1.2_3";
    await resolveModel("org/name");
    expect(server.seen.every(({ authorization }) => authorization === "Bearer glpat-1.2_3")).toBe(true);
    process.env.HF_HUB_CACHE = join(temporary, "another");
    process.env.HF_TOKEN = "hf_tokén\u200b";
    const error = await failure("org/name");
    expect(error).toMatchObject({ code: ExitCode.auth, message: expect.not.stringContaining("hf_tok") });
  });

  test("uses the token of a login", async () => {
    const server = hub.serve({ "org/name": model() });
    mkdirSync(process.env.HF_HOME!, { recursive: true });
    writeFileSync(join(process.env.HF_HOME!, "token"), "hf_from_file\n");
    await resolveModel("org/name");
    rmSync(join(process.env.HF_HOME!, "token"));
    expect(server.seen[0]!.authorization).toBe("Bearer hf_from_file");
  });

  test("can be fetched twice at once", async () => {
    hub.serve({ "org/name": model() });
    const both = await Promise.all([resolveModel("org/name"), resolveModel("org/name")]);
    expect(both[0]!.path).toBe(both[1]!.path);
    expect(new Uint8Array(readFileSync(join(both[0]!.path, "model.safetensors")))).toEqual(weights);
    expect(leftovers()).toEqual([]);
  });

  test.each(["../evil.json", "/etc/evil.json", "a\\..\\evil.json", "C:evil.json", "x/../../evil.json"])(
    "with a file called %s is refused",
    async (name) => {
      hub.serve({ "org/name": model({ files: { ...model().files, [name]: "{}" } }) });
      expect((await failure("org/name")).message).toMatch(/could leave the cache/);
    },
  );

  test("that is gated says how to get in, whatever the status", async () => {
    hub.serve({ "org/name": model({ gated: true }) });
    const error = await failure("org/name");
    expect(error.code).toBe(ExitCode.auth);
    expect(error.message).toMatch(/gated/);
    expect(error.hint).toMatch(/terms/);
    expect(leftovers()).toEqual([]);
  });

  test("whose commit is a path is refused before anything is written", async () => {
    hub.serve({ "org/name": model({ sha: "../../../escape" }) });
    expect((await failure("org/name")).message).toMatch(/commit/);
    expect(existsSync(join(temporary, "escape"))).toBe(false);
  });

  test("of which only some parts are in the cache is not taken from there", async () => {
    const commit = "a".repeat(40);
    const repo = join(hub.cache, "models--org--name");
    mkdirSync(join(repo, "snapshots", commit), { recursive: true });
    mkdirSync(join(repo, "refs"));
    writeFileSync(join(repo, "refs/main"), commit);
    for (const name of ["config.json", "model-00001-of-00002.safetensors"]) {
      writeFileSync(join(repo, "snapshots", commit, name), "{}");
    }
    process.env.HF_HUB_OFFLINE = "1";
    expect((await failure("org/name")).code).toBe(ExitCode.notFound);
    writeFileSync(join(repo, "snapshots", commit, "model-00002-of-00002.safetensors"), "");
    expect((await resolveModel("org/name")).source).toBe("cache");
  });

  test("without a config is no model", async () => {
    hub.serve({ "org/name": { files: { "README.md": "hello" } } });
    expect((await failure("org/name")).message).toMatch(/is no model/);
  });

  test("into a cache that cannot be written", async () => {
    hub.serve({ "org/name": model() });
    const blocked = join(temporary, "blocked");
    writeFileSync(blocked, "a file where the folder should be");
    process.env.HF_HUB_CACHE = join(blocked, "hub");
    expect((await failure("org/name")).code).toBe(ExitCode.resources);
  });

  test.each(["localhost:8000", "ftp://x", "hub"])("of a hub at %s is refused", async (endpoint) => {
    process.env.HF_ENDPOINT = endpoint;
    expect(await failure("org/name")).toMatchObject({
      code: ExitCode.usage,
      message: `HF_ENDPOINT is no address: ${endpoint}`,
    });
  });

  test("when nobody answers", async () => {
    const server = hub.serve({});
    server.stop();
    const error = await failure("org/name");
    expect(error.message).toMatch(/could not be downloaded/);
    expect(error.hint).toMatch(/no folder or file of that name here either/);
  });
});
