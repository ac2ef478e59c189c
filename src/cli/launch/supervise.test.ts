/** When the end of one rank is the end of the others. The ranks are shells. */
import { afterAll, expect, test } from "bun:test";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { supervise } from "./supervise";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-supervise-test-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** @returns the exit code, and what a user is told */
async function run(...scripts: readonly string[]) {
  const notes: string[] = [];
  const ranks = scripts.map((_, rank) => ({
    rank,
    host: { ssh: "127.0.0.1", ips: ["127.0.0.1"], rdma: [] },
    env: {},
    files: {},
  }));
  const code = await supervise(ranks, {
    commandOf: ({ rank }) => ["sh", "-c", scripts[rank]!],
    cwd: folder,
    line: () => {},
    note: (line) => notes.push(line),
  });
  return { code, notes };
}

test("after an interrupt the first rank saves, though the others have ended", async () => {
  expect(await run("sleep 0.7; touch saved; exit 130", "exit 130", "exit 130")).toEqual({ code: 130, notes: [] });
  expect(existsSync(join(folder, "saved"))).toBe(true);
});

test("what the first rank fails with is the end, also after an interrupt", async () => {
  const { code, notes } = await run("sleep 0.3; echo 'mlxlm: the disk is full' >&2; exit 5", "exit 130");
  expect(code).toBe(5);
  expect(notes).toEqual(["rank 0 (127.0.0.1) ended with code 5. The other ranks are ended"]);
});

test("where the first rank ends well, so do all", async () => {
  expect(await run("exit 0", "sleep 0.3; exit 1")).toEqual({ code: 0, notes: [] });
});

test.each([
  ["the first rank", "exit 130", "exec sleep 20"],
  ["another rank", "exec sleep 20", "echo 'mlxlm: no such thing' >&2; exit 3"],
])("the end of %s ends the others", async (_, first, second) => {
  const began = performance.now();
  const { code, notes } = await run(first, second);
  expect(performance.now() - began).toBeLessThan(10_000);
  expect([code, notes]).toEqual(
    code === 130 ? [130, []] : [3, ["rank 1 (127.0.0.1) ended with code 3: no such thing. The other ranks are ended"]],
  );
});
