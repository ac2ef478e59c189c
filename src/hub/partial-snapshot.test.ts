/** Snapshots of the cache of which files are missing: as other programs, deletions and interrupted downloads leave them. */
import { describe, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { hubEnvironment } from "../../test/hub-environment";
import { commit } from "../../test/hub-server";
import { ExitCode, UserError } from "../errors";
import { resolveModel } from "./resolve";

const hub = hubEnvironment();

const files = {
  "config.json": "{}",
  "model.safetensors": "weights",
  "tokenizer.json": '{"a": 1}',
  "tokenizer_config.json": '{"chat_template": "{{ messages }}"}',
  "generation_config.json": "{}",
};

const repo = () => join(hub.cache, "models--org--name");
const snapshot = () => join(repo(), "snapshots", commit);

/** A snapshot with these files, as a program leaves it that keeps no list. */
function leave(names: readonly string[]): void {
  mkdirSync(snapshot(), { recursive: true });
  mkdirSync(join(repo(), "refs"), { recursive: true });
  writeFileSync(join(repo(), "refs/main"), commit);
  for (const name of names) writeFileSync(join(snapshot(), name), files[name as keyof typeof files] ?? "");
}

async function resolved() {
  const warnings: string[] = [];
  const model = await resolveModel("org/name", { onWarning: (warning) => warnings.push(warning) });
  return { ...model, warnings };
}

async function failure(): Promise<UserError> {
  const error = await resolved().catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(UserError);
  return error as UserError;
}

const all = Object.keys(files);
const whole = () => expect(readdirSync(snapshot()).sort()).toEqual(all.toSorted());

describe("online", () => {
  for (const [name, names] of [
    ["without tokenizer_config.json", all.filter((one) => one !== "tokenizer_config.json")],
    ["with a configuration and weights only", ["config.json", "model.safetensors"]],
    ["without weights", all.filter((one) => one !== "model.safetensors")],
    ["with a configuration only", ["config.json"]],
  ] as const) {
    test(`a snapshot ${name} is completed, once`, async () => {
      leave(names);
      const { seen } = hub.serve({ "org/name": { files } });
      expect(await resolved()).toMatchObject({ path: snapshot(), source: "download", warnings: [] });
      whole();
      for (const one of all) expect(readFileSync(join(snapshot(), one), "utf8")).toBe(files[one as keyof typeof files]);
      const asked = seen.length;
      expect(await resolved()).toMatchObject({ source: "cache" });
      expect(seen.length).toBe(asked);
    });
  }

  test("what the hub has no more of is asked for once", async () => {
    leave(["config.json", "model.safetensors"]);
    const { "config.json": config, "model.safetensors": weights } = files;
    const { seen } = hub.serve({ "org/name": { files: { "config.json": config, "model.safetensors": weights } } });
    expect(await resolved()).toMatchObject({ source: "cache", warnings: [] });
    expect(await resolved()).toMatchObject({ source: "cache", warnings: [] });
    expect(seen.length).toBe(1);
  });

  test("a file that was deleted after the download comes again; the others do not", async () => {
    const { seen } = hub.serve({ "org/name": { files } });
    await resolved();
    rmSync(realpathSync(join(snapshot(), "tokenizer_config.json")));
    const before = seen.length;
    expect(await resolved()).toMatchObject({ source: "download" });
    whole();
    expect(seen.slice(before).map(({ path }) => path.split("/").at(-1))).toEqual(["tokenizer_config.json"]);
  });

  test("a snapshot with all that models have asks nothing", async () => {
    leave(all);
    const { seen } = hub.serve({ "org/name": { files } });
    expect(await resolved()).toMatchObject({ source: "cache", warnings: [] });
    expect(seen).toEqual([]);
  });

  test("where the hub cannot be asked, what may be missing is told, and the snapshot is taken", async () => {
    leave(["config.json", "model.safetensors"]);
    hub.serve({ "org/name": { files, status: 401 } });
    const { source, warnings } = await resolved();
    expect(source).toBe("cache");
    expect(warnings).toEqual([expect.stringContaining("tokenizer.json, tokenizer_config.json, chat_template.jinja")]);
  });

  test("where the hub cannot be asked, what is missing is an error", async () => {
    leave(all.filter((name) => name !== "model.safetensors"));
    hub.serve({ "org/name": { files, status: 401 } });
    expect(await failure()).toMatchObject({
      code: ExitCode.auth,
      message: expect.stringContaining("lacks model.safetensors"),
    });
  });

  test("a list of the cache that leads out of the snapshot is refused", async () => {
    leave(["config.json"]);
    mkdirSync(join(repo(), "trees"));
    const entry = { size: 1, blob_id: "a".repeat(40) };
    const list = { format_version: 1, files: { "config.json": entry, "../../../x.json": entry, "y.json": entry } };
    writeFileSync(join(repo(), "trees", `${commit}.json`), JSON.stringify(list));
    hub.serve({ "org/name": { files } });
    expect((await failure()).message).toMatch(/could leave the cache/);
  });
});

describe("offline", () => {
  const offline = () => {
    process.env.HF_HUB_OFFLINE = "1";
  };

  test("what the cache's list names and is not there is an error that names it", async () => {
    hub.serve({ "org/name": { files } });
    await resolved();
    offline();
    for (const name of ["tokenizer_config.json", "generation_config.json"]) rmSync(join(snapshot(), name));
    expect(await failure()).toMatchObject({
      code: ExitCode.notFound,
      message: expect.stringContaining("lacks generation_config.json, tokenizer_config.json"),
      hint: expect.stringContaining("HF_HUB_OFFLINE"),
    });
  });

  test("a link to nothing is a missing file", async () => {
    leave(all.filter((name) => name !== "tokenizer.json"));
    symlinkSync("../../blobs/gone", join(snapshot(), "tokenizer.json"));
    offline();
    expect((await failure()).message).toContain("lacks tokenizer.json");
  });

  test("parts that an index names are missing files", async () => {
    leave(["config.json", "model-00001-of-00002.safetensors"]);
    const map = { a: "model-00001-of-00002.safetensors", b: "model-00002-of-00002.safetensors" };
    writeFileSync(join(snapshot(), "model.safetensors.index.json"), JSON.stringify({ weight_map: map }));
    offline();
    expect((await failure()).message).toContain("lacks model-00002-of-00002.safetensors");
  });

  test("where nothing tells, what is absent is a warning", async () => {
    leave(["config.json", "model.safetensors", "tokenizer.json"]);
    offline();
    const { source, warnings } = await resolved();
    expect(source).toBe("cache");
    expect(warnings).toEqual([expect.stringContaining("no tokenizer_config.json, chat_template.jinja")]);
  });

  test("what another program found not to exist is not missed", async () => {
    leave(["config.json", "model.safetensors", "tokenizer.json"]);
    mkdirSync(join(repo(), ".no_exist", commit), { recursive: true });
    for (const name of ["tokenizer_config.json", "chat_template.jinja"])
      writeFileSync(join(repo(), ".no_exist", commit, name), "");
    offline();
    expect(await resolved()).toMatchObject({ source: "cache", warnings: [] });
  });

  test.each(["", "[]", "{", '{"format_version": 2, "files": {}}', '{"format_version": 1, "files": {"a": {}}}', "null"])(
    "a list that is damaged counts for none: %p",
    async (text) => {
      leave(all);
      mkdirSync(join(repo(), "trees"));
      writeFileSync(join(repo(), "trees", `${commit}.json`), text);
      offline();
      expect(await resolved()).toMatchObject({ source: "cache", warnings: [] });
    },
  );
});

test("the list is the one that Python's client writes", async () => {
  hub.serve({ "org/name": { files: { ...files, "sub/more.json": "{}" }, large: ["model.safetensors"] } });
  await resolved();
  const list = JSON.parse(readFileSync(join(repo(), "trees", `${commit}.json`), "utf8"));
  expect(list.format_version).toBe(1);
  expect(Object.keys(list.files)).toEqual([...all, "sub/more.json"].toSorted());
  expect(list.files["config.json"]).toEqual({ size: 2, blob_id: expect.stringMatching(/^[0-9a-f]{40}$/) });
  expect(list.files["model.safetensors"]).toMatchObject({ size: 7, lfs_size: 7, lfs_sha256: expect.any(String) });
  expect(existsSync(join(snapshot(), "sub"))).toBe(false);
});
