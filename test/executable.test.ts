/** The built executable, alone in an empty folder with a fresh home: it must need nothing else. */
import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
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

async function run(words: string[], env: Record<string, string> = {}, cwd = folder) {
  const child = Bun.spawn([join(folder, "mlxlm"), ...words], {
    cwd,
    env: { HOME: home, PATH: "/usr/bin:/bin", HF_HUB_OFFLINE: "1", ...env },
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out, problems, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { out, problems, code };
}

const unpackedFolders = () => readdirSync(join(home, ".cache/mlxlm")).filter((name) => !name.includes("."));

// A first start writes 190 MB; several at once do it on cores that others use, too.
setDefaultTimeout(120_000);

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
    expect(unpackedFolders().length).toBe(3);
  });

  test("repairs an unpacked library that was cut off", async () => {
    for (const name of unpackedFolders()) {
      const library = join(home, ".cache/mlxlm", name, "lib/libmlxlm.so");
      if (existsSync(library)) truncateSync(library, 1000);
    }
    expect((await run(["generate", "--model", "demo", "-m", "1"])).code).toBe(0);
  });

  test("repairs what has the right size and wrong bytes", async () => {
    const words = ["generate", "--model", "demo", "--prompt", "What is 27 + 58?"];
    const { out } = await run(words);
    for (const name of unpackedFolders()) {
      const path = join(home, ".cache/mlxlm", name, "chat_template.jinja");
      if (existsSync(path)) writeFileSync(path, "\0".repeat(statSync(path).size));
    }
    const after = await run(words);
    expect(after.code).toBe(0);
    expect(after.out).toBe(out);
  });

  test("several at once unpack side by side", async () => {
    rmSync(join(home, ".cache"), { recursive: true });
    const runs = await Promise.all(Array.from({ length: 8 }, () => run(["generate", "--model", "demo", "-m", "2"])));
    expect(runs.map(({ code }) => code)).toEqual(Array(8).fill(0));
    expect(new Set(runs.map(({ out }) => out)).size).toBe(1);
    expect(readdirSync(join(home, ".cache/mlxlm")).filter((name) => name.includes("."))).toEqual([]);
  });

  test("nothing in the folder where it is started sets variables or runs code", async () => {
    const strange = join(folder, "strange");
    const ran = join(strange, "it ran");
    mkdirSync(strange);
    writeFileSync(join(strange, "bunfig.toml"), 'preload = ["./evil.ts"]\n');
    writeFileSync(join(strange, "evil.ts"), `require("node:fs").writeFileSync(${JSON.stringify(ran)}, "");`);
    writeFileSync(join(strange, "tsconfig.json"), "not JSON at all");
    writeFileSync(join(strange, "package.json"), "not JSON at all");
    const words = ["generate", "--model", "demo", "-m", "1"];
    const first = await run(words, {}, strange);
    expect(first.code).toBe(0);
    expect(existsSync(ran)).toBe(false);

    writeFileSync(join(strange, "bunfig.toml"), "[[[not TOML");
    for (const name of [".env", ".env.local", ".env.production", ".env.development"]) {
      writeFileSync(join(strange, name), "MLXLM_NATIVE=./n\nXDG_CACHE_HOME=./c\n");
    }
    const second = await run(words, {}, strange);
    expect(second).toMatchObject({ code: 0, out: first.out });
    expect(existsSync(join(strange, "c"))).toBe(false);
  });

  test("leaves nothing in the temp folder, and does not load what lies there", async () => {
    const temporary = join(folder, "empty tmp");
    mkdirSync(temporary);
    expect((await run(["generate", "--model", "demo", "-m", "1"], { TMPDIR: temporary })).code).toBe(0);
    expect(readdirSync(temporary)).toEqual([]);
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
