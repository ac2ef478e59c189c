import { expect, test } from "bun:test";
import { cacheFolder, embeddedFolder } from "./embedded";

test("a checkout has nothing embedded", () => {
  expect(embeddedFolder("native")).toBeNull();
});

test("the cache follows XDG_CACHE_HOME", () => {
  const before = process.env.XDG_CACHE_HOME;
  process.env.XDG_CACHE_HOME = "/somewhere";
  try {
    expect(cacheFolder()).toBe("/somewhere/mlxlm");
  } finally {
    if (before === undefined) delete process.env.XDG_CACHE_HOME;
    else process.env.XDG_CACHE_HOME = before;
  }
});
