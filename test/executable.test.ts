/** The built executable, alone in an empty folder with a fresh home: it must need nothing else. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const built = join(import.meta.dir, "../dist/mlxlm");
const folder = mkdtempSync(join(tmpdir(), "mlxlm-alone-"));
const home = join(folder, "home");

beforeAll(() => {
  if (!existsSync(built)) throw new Error("dist/mlxlm is missing: bun run build");
  copyFileSync(built, join(folder, "mlxlm"));
  chmodSync(join(folder, "mlxlm"), 0o755);
  mkdirSync(home);
});

afterAll(() => rmSync(folder, { recursive: true }));

async function run(words: string[], env: Record<string, string> = {}) {
  const child = Bun.spawn(["./mlxlm", ...words], {
    cwd: folder,
    env: { HOME: home, PATH: "/usr/bin:/bin", HF_HUB_OFFLINE: "1", ...env },
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out, problems, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { out, problems, code };
}

const unpackedFolders = () => readdirSync(join(home, ".cache/mlxlm")).filter((name) => !name.includes("."));

describe("the executable", () => {
  test("shows help without unpacking anything", async () => {
    expect((await run(["--help"])).code).toBe(0);
    expect(existsSync(join(home, ".cache"))).toBe(false);
  });

  test("adds two numbers with the demo model, by name and by default", async () => {
    const named = await run(["generate", "--model", "demo", "--prompt", "What is 27 + 58?"]);
    expect(named.problems).toMatch(/Generation: /);
    expect(named.out.trim()).toEndWith("27 + 58 = 85.");
    const unnamed = await run(["generate", "--prompt", "What is 27 + 58?"]);
    expect(unnamed.out).toBe(named.out);
    expect(unnamed.problems).toContain("No model was named");
    expect(unpackedFolders().length).toBe(2);
  });

  test("repairs an unpacked library that was cut off", async () => {
    for (const name of unpackedFolders()) {
      const library = join(home, ".cache/mlxlm", name, "lib/libmlxlm.so");
      if (existsSync(library)) truncateSync(library, 1000);
    }
    expect((await run(["generate", "--model", "demo", "-m", "1"])).code).toBe(0);
  });

  test("several at once unpack side by side", async () => {
    rmSync(join(home, ".cache"), { recursive: true });
    const runs = await Promise.all([1, 2, 3].map(() => run(["generate", "--model", "demo", "-m", "2"])));
    expect(runs.map(({ code }) => code)).toEqual([0, 0, 0]);
    expect(readdirSync(join(home, ".cache/mlxlm")).filter((name) => name.includes("."))).toEqual([]);
  });

  test("finds another place where the cache cannot be written", async () => {
    const blocked = join(folder, "blocked");
    writeFileSync(blocked, "");
    const temporary = join(folder, "tmp");
    mkdirSync(temporary);
    const there = await run(["generate", "--model", "demo", "-m", "1"], { XDG_CACHE_HOME: blocked, TMPDIR: temporary });
    expect(there.code).toBe(0);
    const nowhere = await run(["generate", "--model", "demo", "-m", "1"], {
      XDG_CACHE_HOME: blocked,
      TMPDIR: join(blocked, "x"),
    });
    expect(nowhere.code).toBe(5);
    expect(nowhere.problems).toMatch(/XDG_CACHE_HOME|TMPDIR/);
  });
});
