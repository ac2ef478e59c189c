import { afterEach, beforeEach, expect, test } from "bun:test";
import { homedir } from "node:os";
import { join } from "node:path";
import { hubCache } from "./environment";

const names = ["HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "SOMEWHERE"];
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
