/** Uploads to a loopback hub: what arrives there, and what happens where it refuses or fails. */
import { beforeEach, describe, expect, test } from "bun:test";
import { createHash, randomBytes } from "node:crypto";
import {
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { version } from "../../package.json";
import { hubEnvironment } from "../../test/hub-environment";
import type { HubServer } from "../../test/hub-server";
import type { HubUploads } from "../../test/hub-uploads";
import { xetStore } from "../../test/hub-xet-store";
import { ExitCode, UserError } from "../errors";
import { type UploadOptions, uploadModel, uploadTarget } from "./upload";

const hub = hubEnvironment();
const weights = new Uint8Array(randomBytes(300_000));
const card = "---\nlicense: mit\nbase_model: someone/original\n---\nold text\n";

let uploads: HubUploads;
let server: HubServer;
let folder: string;

beforeEach(() => {
  uploads = { token: "hf_mine", user: "me", repos: new Map(), stored: new Map() };
  server = hub.serve({}, uploads);
  process.env.HF_TOKEN = "hf_mine";
  folder = realpathSync(mkdtempSync(join(hub.folder, "model-")));
  writeFileSync(join(folder, "config.json"), "{}");
  writeFileSync(join(folder, "README.md"), card);
  writeFileSync(join(folder, "model.safetensors"), weights);
  mkdirSync(join(folder, "extra"));
  writeFileSync(join(folder, "extra/notes.txt"), "n");
});

const arrived = (repo = "me/model") => uploads.repos.get(repo)!;

async function failure(work: Promise<unknown>): Promise<UserError> {
  const error = await work.then(
    () => null,
    (thrown) => thrown,
  );
  expect(error).toBeInstanceOf(UserError);
  expect((error as UserError).hint).toBeTruthy();
  return error as UserError;
}

const upload = (options?: UploadOptions) => uploadModel(folder, "me/model", options);

describe("an upload", () => {
  test("brings every file, and makes the repo", async () => {
    const uploaded = await upload();
    expect([...arrived().keys()].sort()).toEqual(["README.md", "config.json", "extra/notes.txt", "model.safetensors"]);
    expect(new Uint8Array(arrived().get("model.safetensors")!)).toEqual(weights);
    expect(arrived().get("config.json")!.toString()).toBe("{}");
    expect(uploaded).toMatchObject({ url: `${server.url}/me/model`, commit: "1".repeat(40), files: 4 });
  });

  test("comes to a repo that is there, without what the hub has", async () => {
    await upload();
    const { seen } = server;
    const stored = () => seen.filter(({ path }) => path.startsWith("/store/")).length;
    expect(stored()).toBe(1);
    writeFileSync(join(folder, "config.json"), '{"a": 1}');
    await upload();
    expect(stored()).toBe(1);
    expect(arrived().get("config.json")!.toString()).toBe('{"a": 1}');
  });

  test("goes in parts where the hub wants it so, and tells how far it is", async () => {
    uploads.partBytes = 70_000;
    const progress: Record<string, number[]> = { hashing: [], uploading: [] };
    await upload({ onProgress: ({ stage, done }) => progress[stage]!.push(Math.round(done)) });
    expect(new Uint8Array(arrived().get("model.safetensors")!)).toEqual(weights);
    expect(server.seen.filter(({ path, method }) => path.startsWith("/store/") && method === "PUT").length).toBe(5);
    expect(progress.hashing!.at(-1)).toBe(weights.length);
    expect(progress.uploading!).toEqual([0, 60_000, 120_000, 180_000, 240_000, 300_000, 300_000]);
  });

  test("is tried again where the storage fails", async () => {
    uploads.failures = 3;
    await upload();
    expect(uploads.stored.size).toBe(1);
  });

  test("is repeated without harm after one that failed in the end", async () => {
    uploads.refusesCommits = true;
    expect((await failure(upload())).message).toMatch(/refuses to write to me\/model: the branch is protected/);
    expect(arrived().size).toBe(0);
    expect(uploads.stored.size).toBe(1);
    uploads.refusesCommits = false;
    await upload();
    expect(server.seen.filter(({ path }) => path.startsWith("/store/")).length).toBe(1);
    expect(arrived().size).toBe(4);
  });

  test("may be of a snapshot of the cache, whose blobs stay as they are", async () => {
    const repo = join(hub.cache, "models--org--name");
    const snapshot = join(repo, "snapshots", "a".repeat(40));
    mkdirSync(join(repo, "blobs"), { recursive: true });
    mkdirSync(snapshot, { recursive: true });
    for (const name of ["config.json", "README.md", "model.safetensors"]) {
      writeFileSync(join(repo, "blobs", `of-${name}`), readFileSync(join(folder, name)));
      symlinkSync(`../../blobs/of-${name}`, join(snapshot, name));
    }
    await uploadModel(snapshot, "me/model");
    expect(new Uint8Array(arrived().get("model.safetensors")!)).toEqual(weights);
    expect(readFileSync(join(repo, "blobs/of-README.md"), "utf8")).toBe(card);
    expect(lstatSync(join(snapshot, "README.md")).isFile()).toBe(true);
  });

  test("of a folder with many files is one commit", async () => {
    for (let i = 0; i < 230; i++) writeFileSync(join(folder, `model-${i}.safetensors`), `shard ${i}`);
    await upload();
    expect(arrived().size).toBe(234);
    expect(server.seen.filter(({ path }) => path.includes("/commit/")).length).toBe(1);
  });

  test("can be interrupted, and leaves the repo as it was", async () => {
    uploads.slowly = true;
    const error = await failure(upload({ signal: AbortSignal.timeout(200) }));
    expect(error).toMatchObject({ code: ExitCode.interrupted, hint: expect.stringContaining("unchanged") });
    expect(arrived().size).toBe(0);
  });
});

describe("Xet storage", () => {
  const large = new Uint8Array(randomBytes(3_000_000));

  beforeEach(() => {
    uploads.xet = xetStore((oid, bytes) => uploads.stored.set(oid, bytes));
    writeFileSync(join(folder, "model-2.safetensors"), large);
  });

  test("gets what the files are made of", async () => {
    const progress: number[] = [];
    await upload({ onProgress: ({ stage, done }) => stage === "uploading" && progress.push(Math.round(done)) });
    expect(new Uint8Array(arrived().get("model.safetensors")!)).toEqual(weights);
    expect(new Uint8Array(arrived().get("model-2.safetensors")!)).toEqual(large);
    expect(progress.at(-1)).toBe(weights.length + large.length);
    expect(server.seen.some(({ path }) => path.startsWith("/store/"))).toBe(false);
    const { received } = uploads.xet!;
    await upload();
    expect(uploads.xet!.received).toBe(received);
  });

  test("is passed by where the user says so", async () => {
    process.env.HF_HUB_DISABLE_XET = "1";
    await upload();
    expect(new Uint8Array(arrived().get("model-2.safetensors")!)).toEqual(large);
    expect(uploads.xet!.received).toBe(0);
  });
});

describe("the card", () => {
  const text = () => readFileSync(join(folder, "README.md"), "utf8");

  test("keeps its facts and gets a text", async () => {
    await upload();
    expect(arrived().get("README.md")!.toString()).toBe(text());
    expect(text()).toStartWith(
      "---\nlicense: mit\nbase_model: someone/original\n---\n\n# me/model\n\n[someone/original](",
    );
    expect(text()).toContain(`converted by mlxlm **${version}**`);
    expect(text()).toContain('load("me/model")');
    expect(text()).toContain('prompt = "hello"');
    expect(text()).not.toContain("old text");
    const first = text();
    await upload();
    expect(text()).toBe(first);
  });

  test("shows messages where the model takes chats", async () => {
    writeFileSync(join(folder, "tokenizer_config.json"), '{"chat_template": "{{ messages }}"}');
    await upload();
    expect(text()).toContain("apply_chat_template");
  });

  test("is made where there is none", async () => {
    Bun.spawnSync(["rm", join(folder, "README.md")]);
    await upload();
    expect(text()).toStartWith(
      "---\nlibrary_name: mlx\npipeline_tag: text-generation\ntags:\n- mlx\n---\n\n# me/model\n",
    );
    expect(text()).not.toContain("converted by");
  });

  for (const [name, broken] of [
    ["no YAML", "---\na: [\n---\n"],
    ["a list", "---\n- a\n---\n"],
  ] as const) {
    test(`whose facts are ${name} is an error, and stays`, async () => {
      writeFileSync(join(folder, "README.md"), broken);
      expect((await failure(upload())).message).toMatch(/README.md cannot be read/);
      expect(text()).toBe(broken);
      expect(server.seen).toEqual([]);
    });
  }
});

describe("a folder", () => {
  test("that is none, or no model's, is refused and stays as it is", async () => {
    expect((await failure(uploadModel(join(folder, "absent"), "me/model"))).message).toMatch(/there is no folder/);
    expect((await failure(uploadModel(join(folder, "config.json"), "me/model"))).message).toMatch(/is a file/);
    expect(await failure(uploadModel(join(folder, "extra"), "me/model"))).toMatchObject({
      code: ExitCode.notFound,
      message: expect.stringContaining("no config.json"),
    });
    expect(readdirSync(join(folder, "extra"))).toEqual(["notes.txt"]);
    expect(server.seen).toEqual([]);
  });

  test("keeps its hidden files here", async () => {
    for (const name of [".env", ".DS_Store"]) writeFileSync(join(folder, name), "secret");
    mkdirSync(join(folder, ".git"));
    writeFileSync(join(folder, ".git/config.json"), "secret");
    await upload();
    expect([...arrived().keys()].some((name) => name.startsWith("."))).toBe(false);
  });

  for (const [name, target] of [
    ["out of it", "/etc/passwd"],
    ["to nothing", "nowhere"],
    ["out of it by way of a folder", "../../secret"],
  ] as const) {
    test(`with a link that leads ${name} is refused`, async () => {
      writeFileSync(join(hub.folder, "secret"), "secret");
      symlinkSync(target, join(folder, "extra/link.txt"));
      expect((await failure(upload())).message).toMatch(/extra\/link.txt in .* is a link to/);
      expect(server.seen).toEqual([]);
    });
  }

  test("with a link to a folder, even to itself, does without it", async () => {
    symlinkSync(".", join(folder, "loop"));
    symlinkSync("/etc", join(folder, "etc"));
    symlinkSync("config.json", join(folder, "copy.json"));
    await upload();
    expect([...arrived().keys()].sort()).toEqual([
      "README.md",
      "config.json",
      "copy.json",
      "extra/notes.txt",
      "model.safetensors",
    ]);
  });
});

describe("a hub that", () => {
  test("does not know the token, or lets it only read", async () => {
    process.env.HF_TOKEN = "hf_other";
    expect(await failure(uploadTarget("me/model"))).toMatchObject({
      code: ExitCode.auth,
      message: "the hub does not accept the token",
    });
    expect(await failure(upload())).toMatchObject({ code: ExitCode.auth });
    process.env.HF_TOKEN = "hf_mine";
    uploads.role = "read";
    expect(await failure(uploadTarget("me/model"))).toMatchObject({
      code: ExitCode.auth,
      message: "the token may only read",
    });
  });

  test("does not let the user write there", async () => {
    const error = await failure(uploadModel(folder, "other/model"));
    expect(error.code).toBe(ExitCode.auth);
    expect(error.message).toMatch(/refuses to write to other\/model: no rights there/);
  });

  test("lets the user write to a repo that others made", async () => {
    uploads.repos.set("other/model", new Map());
    await uploadModel(folder, "other/model");
    expect(arrived("other/model").size).toBe(4);
  });

  test("has no room left says so", async () => {
    uploads.quota = 1000;
    expect((await failure(upload())).message).toMatch(/model.safetensors: the storage limit is reached/);
    expect(arrived().size).toBe(0);
  });

  test("never stores anything", async () => {
    uploads.failures = 99;
    expect((await failure(upload())).message).toMatch(/me\/model could not be uploaded: the hub has trouble \(503\)/);
    expect(arrived().size).toBe(0);
  });

  test("is not there", async () => {
    server.stop();
    expect((await failure(upload())).message).toMatch(/me\/model could not be uploaded/);
  });
});

describe("the name of the repo", () => {
  test("without an owner is one of the user's", async () => {
    expect(await uploadTarget("model")).toBe("me/model");
    expect(await uploadTarget("org/model")).toBe("org/model");
  });

  test("must be one", async () => {
    expect((await failure(uploadTarget("../x"))).code).toBe(ExitCode.notFound);
    expect(server.seen).toEqual([]);
  });

  test("needs a token and the network", async () => {
    delete process.env.HF_TOKEN;
    expect(await failure(uploadTarget("me/model"))).toMatchObject({
      code: ExitCode.auth,
      hint: expect.stringContaining("HF_TOKEN"),
    });
    process.env.HF_HUB_OFFLINE = "1";
    expect((await failure(uploadTarget("me/model"))).message).toMatch(/network/);
    expect(server.seen).toEqual([]);
  });
});

test("what is stored has the hash that the hub was told", async () => {
  await upload();
  expect([...uploads.stored.keys()]).toEqual([createHash("sha256").update(weights).digest("hex")]);
});
