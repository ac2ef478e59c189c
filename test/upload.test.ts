/** `mlxlm upload` and `mlxlm convert --upload-repo`, to a loopback hub. */
import { beforeEach, describe, expect, test } from "bun:test";
import { cpSync, existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { hubEnvironment } from "./hub-environment";
import type { HubServer } from "./hub-server";
import type { HubUploads } from "./hub-uploads";
import { runCommand } from "./run-command";

const checkpoint = join(import.meta.dir, "fixtures/checkpoint");
const hub = hubEnvironment();

let uploads: HubUploads;
let server: HubServer;
let folders = 0;
let folder: string;

beforeEach(() => {
  uploads = { token: "hf_mine", user: "me", repos: new Map(), stored: new Map() };
  server = hub.serve({}, uploads);
  process.env.HF_TOKEN = "hf_mine";
  folder = join(hub.folder, `model-${folders++}`);
});

const convert = (...words: string[]) =>
  runCommand(["convert", "--hf-path", checkpoint, "--mlx-path", folder, "--upload-repo", "me/small", ...words]);

const arrived = () => uploads.repos.get("me/small")!;

describe("upload", () => {
  test("sends the folder, and says where it is in mlx-lm's words", async () => {
    cpSync(checkpoint, folder, { recursive: true });
    const { code, out } = await runCommand(["upload", "--path", folder, "--upload-repo", "me/small"]);
    expect(code).toBe(0);
    expect(out).toBe(`Upload successful, go to ${server.url}/me/small for details.\n`);
    expect(new Uint8Array(arrived().get("model.safetensors")!)).toEqual(
      new Uint8Array(readFileSync(join(folder, "model.safetensors"))),
    );
    expect(arrived().has("README.md")).toBe(true);
  });

  test("takes a name without an owner, and tells it as JSON", async () => {
    cpSync(checkpoint, folder, { recursive: true });
    const { out } = await runCommand(["upload", "--path", folder, "--upload-repo", "small", "--json"]);
    expect(JSON.parse(out)).toMatchObject({ repo: "me/small", url: `${server.url}/me/small`, commit: "1".repeat(40) });
  });

  test("needs the name of a repo, and a folder", async () => {
    expect(await runCommand(["upload"])).toMatchObject({ code: 2, problems: expect.stringContaining("--upload-repo") });
    expect(await runCommand(["upload", "--path", folder, "--upload-repo", "me/small"])).toMatchObject({
      code: 3,
      problems: expect.stringContaining(`there is no folder ${folder}`),
    });
    expect(uploads.repos.size).toBe(0);
  });
});

describe("convert --upload-repo", () => {
  test("uploads what it saved", async () => {
    const { code, out } = await convert("--dequantize");
    expect(code).toBe(0);
    expect(out).toEndWith(`Upload successful, go to ${server.url}/me/small for details.\n`);
    for (const name of ["config.json", "model.safetensors", "README.md", "tokenizer.json"]) {
      expect(new Uint8Array(arrived().get(name)!)).toEqual(new Uint8Array(readFileSync(join(folder, name))));
    }
    expect(arrived().get("README.md")!.toString()).toContain("# me/small");
  });

  for (const [name, token, problem] of [
    ["no token", "", "needs a token"],
    ["a wrong token", "hf_other", "does not accept the token"],
  ] as const) {
    test(`with ${name} is refused before any work`, async () => {
      process.env.HF_TOKEN = token;
      expect(await convert()).toMatchObject({ code: 4, problems: expect.stringContaining(problem) });
      expect(existsSync(folder)).toBe(false);
    });
  }

  test("keeps what it saved where the hub refuses, and says how to go on", async () => {
    uploads.refusesCommits = true;
    const { code, problems } = await convert();
    expect(code).toBe(4);
    expect(problems).toContain(`mlxlm upload --path ${folder} --upload-repo me/small`);
    expect(existsSync(join(folder, "config.json"))).toBe(true);
    uploads.refusesCommits = false;
    expect((await runCommand(["upload", "--path", folder, "--upload-repo", "me/small"])).code).toBe(0);
    expect(arrived().has("model.safetensors")).toBe(true);
  });

  test("tells of both as JSON", async () => {
    const { out } = await convert("--json");
    expect(JSON.parse(out)).toMatchObject({ path: folder, uploaded: { repo: "me/small" } });
  });
});
