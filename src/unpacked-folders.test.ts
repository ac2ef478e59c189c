import { afterAll, expect, test } from "bun:test";
import { existsSync, mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { usersOf } from "./mapped-by";
import { cleanCache, unpackedFolders } from "./unpacked-folders";

const scratch = mkdtempSync(join(tmpdir(), "mlxlm-folders-"));
afterAll(() => rmSync(scratch, { recursive: true }));

let count = 0;
/** A cache with two other builds' folders and what is none of unpacking's. */
function cache(): string {
  const path = join(scratch, `cache-${count++}`);
  for (const name of ["aaaaaaaaaaaaaaaa/lib", "bbbbbbbbbbbbbbbb/lib", "answers"])
    mkdirSync(join(path, name), { recursive: true });
  writeFileSync(join(path, "aaaaaaaaaaaaaaaa/lib/a.so"), Buffer.alloc(8192, 1));
  writeFileSync(join(path, "bbbbbbbbbbbbbbbb/manifest.json"), "{}");
  for (const [name, hours] of [
    ["cccccccccccccccc.lock", 2],
    ["dddddddddddddddd.lock", 0],
  ] as const) {
    writeFileSync(join(path, name), "1");
    const then = new Date(Date.now() - hours * 3_600_000);
    utimesSync(join(path, name), then, then);
  }
  return path;
}

test("folders are listed with their sizes; a cache that is not there has none", () => {
  const path = cache();
  expect(unpackedFolders(path).map(({ path: folder, bundle, size }) => [folder.slice(-16), bundle, size])).toEqual([
    ["aaaaaaaaaaaaaaaa", null, 8192],
    ["bbbbbbbbbbbbbbbb", null, 2],
  ]);
  expect(unpackedFolders(join(scratch, "none"))).toEqual([]);
});

test("cleaning removes other builds' folders and old leftovers, and nothing else", () => {
  const path = cache();
  expect(cleanCache(path).removed.length).toBe(2);
  const there = (name: string) => existsSync(join(path, name));
  expect(["aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb", "cccccccccccccccc.lock"].some(there)).toBe(false);
  expect(["answers", "dddddddddddddddd.lock"].every(there)).toBe(true);
});

test("while a process has a file of theirs mapped, all stay", async () => {
  const path = cache();
  const mapped = join(path, "aaaaaaaaaaaaaaaa/lib/a.so");
  const map = `const bytes = Bun.mmap(${JSON.stringify(mapped)}); console.log(bytes[0]); await Bun.sleep(60_000); bytes;`;
  const child = Bun.spawn([process.execPath, "-e", map], { stdout: "pipe" });
  try {
    await child.stdout.getReader().read();
    const { removed, kept } = cleanCache(path);
    expect(removed).toEqual([]);
    expect(kept.find((folder) => folder.path.endsWith("aaaaaaaaaaaaaaaa"))?.users).toEqual([child.pid]);
    expect(existsSync(mapped)).toBe(true);
  } finally {
    child.kill();
    await child.exited;
  }
  expect(usersOf(join(path, "aaaaaaaaaaaaaaaa"))).toEqual([]);
  expect(cleanCache(path).removed.length).toBe(2);
});
