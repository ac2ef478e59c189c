import { describe, expect, test } from "bun:test";
import { spawnSync } from "node:child_process";
import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { groupFromEnvironment } from "./group-environment";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-hosts-"));

function read(text: string, rank = "0") {
  const file = join(folder, "hosts.json");
  writeFileSync(file, text);
  return groupFromEnvironment({ MLX_RANK: rank, MLX_HOSTFILE: file, MLXLM_GROUP_KEY: "k" });
}

describe("the group in the environment", () => {
  test("is as MLX's launchers write it", () => {
    expect(read('[["10.0.0.1:5000", "10.0.0.1:5001"], ["[::1]:5002"]]', "1")).toEqual({
      rank: 1,
      addresses: ["10.0.0.1:5000", "[::1]:5002"],
      key: "k",
    });
  });

  test("is none where a variable is missing", () => {
    expect(groupFromEnvironment({ MLX_RANK: "0" })).toBeNull();
    expect(groupFromEnvironment({ MLX_HOSTFILE: "/nowhere" })).toBeNull();
  });

  test.each([
    ["", /must be a JSON list/],
    ["{", /must be a JSON list/],
    ["[]", /must be a JSON list/],
    ["[[]]", /must be a JSON list/],
    ['["127.0.0.1:1"]', /must be a JSON list/],
    ['[["127.0.0.1"]]', /must be a JSON list/],
    ['[["127.0.0.1:65536"]]', /must be a JSON list/],
    ['[["127.0.0.1:0"]]', /must be a JSON list/],
    ['[["127.0.0.1:1"]]', /names 1 processes, so there is no MLX_RANK "1"/],
  ])("%s is an error that says what is wrong", (text, message) => {
    expect(() => read(text, "1")).toThrow(message);
  });

  test.each(["-1", "x", "1.5"])("a rank %s is an error", (rank) => {
    expect(() => read('[["127.0.0.1:1"], ["127.0.0.1:2"]]', rank)).toThrow(/there is no MLX_RANK/);
  });

  test("a file that is not there, or none, is an error", () => {
    const read = (file: string) => groupFromEnvironment({ MLX_RANK: "0", MLX_HOSTFILE: file });
    expect(() => read(join(folder, "absent"))).toThrow(/can't be read: ENOENT/);
    const pipe = join(folder, "pipe");
    spawnSync("mkfifo", [pipe]);
    expect(() => read(pipe)).toThrow("is a named pipe, not a file");
    expect(() => read(folder)).toThrow("is a folder, not a file");
  });
});
