import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { accessToken, hubCache } from "./environment";

const tokens = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH"];
const names = ["HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "SOMEWHERE", ...tokens];
const before = names.map((name) => [name, process.env[name]] as const);
beforeEach(() => {
  for (const name of names) delete process.env[name];
});
afterEach(() => {
  for (const [name, value] of before) {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
});

test("the cache lies where huggingface_hub has it", () => {
  expect(hubCache()).toBe(join(homedir(), ".cache/huggingface/hub"));
  process.env.XDG_CACHE_HOME = "/xdg";
  expect(hubCache()).toBe("/xdg/huggingface/hub");
  process.env.HF_HOME = "/home of models";
  expect(hubCache()).toBe("/home of models/hub");
  process.env.HF_HUB_CACHE = "/cache";
  expect(hubCache()).toBe("/cache");
});

test("a tilde and variables are resolved, as there", () => {
  process.env.SOMEWHERE = "/disk";
  for (const [given, path] of [
    ["~", homedir()],
    ["~/models", join(homedir(), "models")],
    ["$SOMEWHERE/models", "/disk/models"],
    [["$", "{SOMEWHERE}/a~b"].join(""), "/disk/a~b"],
    ["/x/$ABSENT_HERE", "/x/$ABSENT_HERE"],
  ] as const) {
    process.env.HF_HUB_CACHE = given;
    expect(hubCache()).toBe(path);
  }
});

test("a pipe in the place of the token's file is refused, where reading would wait for ever", () => {
  const folder = mkdtempSync(join(tmpdir(), "mlxlm-token-"));
  try {
    const pipe = join(folder, "token");
    Bun.spawnSync(["mkfifo", pipe]);
    process.env.HF_TOKEN_PATH = pipe;
    expect(accessToken).toThrow("is a named pipe, not a file");
    process.env.HF_TOKEN_PATH = join(folder, "none");
    expect(accessToken()).toBeUndefined();
  } finally {
    rmSync(folder, { recursive: true });
  }
});
