/** When the end of one rank is the end of the others. The ranks are shells. */
import { afterAll, describe, expect, test } from "bun:test";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { supervise } from "./supervise";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-supervise-test-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** @returns the exit code, what a user is told, and what the other ranks write */
async function run(...scripts: readonly string[]) {
  const notes: string[] = [];
  const lines: string[] = [];
  const ranks = scripts.map((_, rank) => ({
    rank,
    host: { ssh: "127.0.0.1", ips: ["127.0.0.1"], rdma: [] },
    env: {},
    files: {},
  }));
  const code = await supervise(ranks, {
    commandOf: ({ rank }) => ["sh", "-c", scripts[rank]!],
    cwd: folder,
    line: (_, text) => lines.push(text),
    note: (line) => notes.push(line),
  });
  return { code, notes, lines };
}

test("after an interrupt the first rank saves, though the others have ended", async () => {
  expect(await run("sleep 0.7; touch saved; exit 130", "exit 130", "exit 130")).toEqual({
    code: 130,
    notes: [],
    lines: [],
  });
  expect(existsSync(join(folder, "saved"))).toBe(true);
});

test("what the first rank fails with is the end, also after an interrupt", async () => {
  const { code, notes } = await run("sleep 0.3; echo 'mlxlm: the disk is full' >&2; exit 5", "exit 130");
  expect(code).toBe(5);
  expect(notes).toEqual(["rank 0 (127.0.0.1) ended with code 5. The other ranks are ended"]);
});

test("where the first rank ends well, so do all", async () => {
  expect(await run("exit 0", "sleep 0.3; exit 1")).toEqual({ code: 0, notes: [], lines: [] });
});

test.each([
  ["the first rank", "exit 130", "exec sleep 20"],
  ["another rank", "exec sleep 20", "echo 'mlxlm: no such thing' >&2; exit 3"],
])("the end of %s ends the others", async (_, first, second) => {
  const began = performance.now();
  const { code, notes, lines } = await run(first, second);
  expect(performance.now() - began).toBeLessThan(10_000);
  if (code === 130) return expect([notes, lines]).toEqual([[], []]);
  expect(notes).toEqual(["rank 1 (127.0.0.1) ended with code 3. The other ranks are ended"]);
  expect(lines).toEqual(["[1] mlxlm: no such thing"]);
});

const fails = (words: string, code: number, hint = "") =>
  `printf '%s' '${words}' > $MLXLM_LAST_WORDS; printf 'mlxlm: ${words}\n${hint}' >&2; exit ${code}`;
const misses = (rank: number) => fails(`MLX: the connection to rank ${rank} (127.0.0.1:7) was lost`, 1);

describe("the cause", () => {
  test("is told once where all ranks say it", async () => {
    const gone = fails("no such file", 3, "       Check the path.\n");
    expect(await run(`sleep 0.2; ${gone}`, gone, fails("rank 0: no such file", 3))).toEqual({
      code: 3,
      notes: [],
      lines: [],
    });
  });

  test("is the first rank's error, where another ends before it because it misses it", async () => {
    expect(await run(`sleep 0.3; ${fails("the disk is full", 5)}`, misses(0))).toEqual({
      code: 5,
      notes: [],
      lines: [],
    });
  });

  test("is another rank's error with its hint, where the first misses it", async () => {
    const { code, notes, lines } = await run(
      misses(1),
      `sleep 0.3; ${fails("no such file", 3, "       Check the path.\n")}`,
      misses(1),
    );
    expect({ code, notes }).toEqual({
      code: 3,
      notes: ["rank 1 (127.0.0.1) ended with code 3. The other ranks are ended"],
    });
    expect(lines).toEqual(["[1] mlxlm: no such file", "[1]        Check the path."]);
  });

  test("is a rank that was killed", async () => {
    const { code, notes, lines } = await run(misses(1), "sleep 0.2; kill -9 $$", misses(1));
    expect([code, notes, lines]).toEqual([
      137,
      ["rank 1 (127.0.0.1) was ended by SIGKILL. The other ranks are ended"],
      [],
    ]);
  });

  test("is told once where the first rank tells of another's", async () => {
    const other = fails("no such file", 3);
    for (const late of [0, 0.2]) {
      const first = `sleep ${late}; ${fails("rank 1: no such file", 3)}`;
      expect(await run(first, `sleep 0.1; ${other}`, fails("rank 1: no such file", 3))).toEqual({
        code: 3,
        notes: [],
        lines: [],
      });
    }
  });

  test("is the last of a chain of ranks that miss each other", async () => {
    const { code, lines } = await run(misses(1), misses(2), `sleep 0.3; ${fails("the disk is full", 5)}`);
    expect([code, lines]).toEqual([5, ["[2] mlxlm: the disk is full"]]);
  });

  test("is told once in JSON, also where a rank leaves no file", async () => {
    const error = '{"error":{"code":3,"message":"no such file","hint":"Check the path."}}';
    const gone = fails("no such file", 3);
    const { code, notes, lines } = await run(`sleep 0.2; ${gone}`, `echo '${error}' >&2; exit 3`);
    expect([code, notes, lines]).toEqual([3, [], []]);
  });

  test("is the connection, where no rank has failed by itself", async () => {
    const { code, notes } = await run("exec sleep 20", misses(0));
    expect(code).toBe(1);
    expect(notes[0]).toStartWith("rank 1 (127.0.0.1) ended with code 1");
  });
});

test("an error of a process that goes on is shown while it does", async () => {
  const { lines } = await run("sleep 2", "echo 'mlxlm: a request failed' >&2; sleep 1.4; echo later");
  expect(lines).toEqual(["[1] mlxlm: a request failed", "[1] later"]);
});
