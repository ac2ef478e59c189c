/** Datasets of a loopback hub, by its branch of Parquet files. */
import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { hubEnvironment } from "../../test/hub-environment";
import { commit, type HubRepo } from "../../test/hub-server";
import { ExitCode, UserError } from "../errors";
import { openDataset } from "./dataset";
import type { DatasetOptions } from "./splits";

const hub = hubEnvironment();
const fixtures = join(import.meta.dir, "../../test/fixtures/evaluate");
const [plain, packed] = ["none", "zstd"].map((name) => readFileSync(join(fixtures, `table-${name}.parquet`)));

const dataset = (configs: string[], extra: Partial<HubRepo> = {}): HubRepo => {
  const files = configs.flatMap((config) => [
    [`${config}/train/0000.parquet`, plain!],
    [`${config}/train/0001.parquet`, packed!],
    [`${config}/partial-test/0000.parquet`, plain!],
  ]);
  const large = files.map(([name]) => name as string);
  return { isDataset: true, files: { ...Object.fromEntries(files), "README.md": "none of it" }, large, ...extra };
};

/** Rows of each split. */
async function sizes(options?: DatasetOptions): Promise<Record<string, number>> {
  const splits = await openDataset("org/name", options);
  return Object.fromEntries([...splits].map(([split, { length }]) => [split, length]));
}

async function failure(options?: DatasetOptions): Promise<UserError> {
  const error = await openDataset("org/name", options).then(
    () => null,
    (thrown) => thrown,
  );
  expect(error).toBeInstanceOf(UserError);
  expect((error as UserError).hint).toBeTruthy();
  return error as UserError;
}

const repoFolder = () => join(hub.cache, "datasets--org--name");

test("a file of data that is not there is looked for on no hub", async () => {
  for (const name of ["nosuch.jsonl", "some/NOSUCH.CSV", "./nosuch.parquet", "~/nosuch.txt"]) {
    expect(openDataset(name)).rejects.toMatchObject({ message: `there is no file ${name}`, code: ExitCode.notFound });
  }
});

describe("a dataset of the hub", () => {
  test("comes into the shared cache, and from there the next time", async () => {
    const server = hub.serve({ "org/name": dataset(["default"]) });
    const progress: number[] = [];
    expect(await sizes({ onProgress: (done) => progress.push(done) })).toEqual({ train: 6, test: 3 });
    expect(progress.at(-1)).toBe(plain!.length + packed!.length);
    expect(readFileSync(join(repoFolder(), "refs/refs/convert/parquet"), "utf8")).toBe(commit);
    expect(readdirSync(join(repoFolder(), "blobs")).length).toBe(2);
    server.stop();
    expect(await sizes()).toEqual({ train: 6, test: 3 });
    const rows = (await openDataset("org/name")).get("test")!;
    expect(Object.keys(await rows.at(0))).toContain("count");
  });

  test("is not found in the cache while a configuration is incomplete", async () => {
    const server = hub.serve({ "org/name": dataset(["default"]) });
    await sizes();
    rmSync(join(repoFolder(), "snapshots", commit, "default/.whole"));
    server.stop();
    process.env.HF_HUB_OFFLINE = "1";
    expect(await failure()).toMatchObject({ code: ExitCode.notFound });
  });

  test("with several configurations wants one to be named, however many are in the cache", async () => {
    hub.serve({ "org/name": dataset(["english", "german"]) });
    expect((await failure()).message).toBe("the dataset org/name has several configurations: english, german");
    expect((await failure({ name: "germen" })).hint).toBe("Did you mean german?");
    expect(await sizes({ name: "german" })).toEqual({ train: 6, test: 3 });
    expect((await failure()).message).toMatch(/several configurations/);
    process.env.HF_HUB_OFFLINE = "1";
    expect(await sizes({ name: "german" })).toEqual({ train: 6, test: 3 });
    for (const name of ["english", "../german", undefined]) {
      expect((await failure({ name })).message).toMatch(/is not in the cache/);
    }
  });

  test("continues over a bad line, and is checked", async () => {
    const { seen } = hub.serve({ "org/name": dataset(["default"], { hangUps: 1 }) });
    expect(await sizes()).toEqual({ train: 6, test: 3 });
    const continued = [plain!, packed!].map(({ length }) => `bytes=${Math.floor(length / 2)}-`);
    expect(seen.some(({ range }) => continued.includes(range!))).toBe(true);
  });

  test("that arrives damaged is refused, and nothing of it is taken for whole", async () => {
    hub.serve({ "org/name": dataset(["default"], { damages: 9 }) });
    expect((await failure()).message).toMatch(/arrived damaged/);
    process.env.HF_HUB_OFFLINE = "1";
    expect((await failure()).message).toMatch(/not in the cache/);
  });

  test("is asked of the place of datasets, with the token", async () => {
    const { seen } = hub.serve({ "org/name": dataset(["default"]) });
    process.env.HF_TOKEN = "hf_secret";
    await sizes();
    expect(seen.every(({ path }) => /^\/(api\/)?datasets\/org\/name\//.test(path))).toBe(true);
    expect(seen.every(({ authorization }) => authorization === "Bearer hf_secret")).toBe(true);
  });

  for (const [name, repo, code, message] of [
    ["without Parquet files", dataset([]), ExitCode.notFound, /no Parquet files/],
    ["that does not exist", { ...dataset(["default"]), isDataset: false }, ExitCode.notFound, /no repo the dataset/],
    ["that is private", dataset(["default"], { status: 401 }), ExitCode.auth, /is private/],
    ["that is gated", dataset(["default"], { gated: true }), ExitCode.auth, /gated/],
    ["whose files would leave the cache", dataset([".."]), ExitCode.failure, /could leave the cache/],
    ["whose commit is a path", dataset(["default"], { sha: "../../x" }), ExitCode.failure, /as the commit/],
  ] as const) {
    test(`${name} is an error`, async () => {
      hub.serve({ "org/name": repo });
      const error = await failure();
      expect(error.message).toMatch(message);
      expect(error.code).toBe(code);
    });
  }

  test("that is too large for the disk is refused before anything is fetched", async () => {
    const { seen } = hub.serve({
      "org/name": dataset(["default"], { claims: { "default/train/0001.parquet": 1e18 } }),
    });
    expect((await failure()).code).toBe(ExitCode.resources);
    expect(seen.some(({ path }) => path.includes("/resolve/"))).toBe(false);
  });

  test("can be interrupted", async () => {
    hub.serve({ "org/name": dataset(["default"], { slowly: 20 }) });
    const signal = AbortSignal.timeout(200);
    expect((await failure({ signal })).code).toBe(ExitCode.interrupted);
  });

  test("is a file that is there rather than a repo", async () => {
    const path = join(hub.folder, "rows.jsonl");
    writeFileSync(path, '{"a": 1}\n');
    expect((await openDataset(path)).get("train")!.length).toBe(1);
  });
});
