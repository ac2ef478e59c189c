/** `mlxlm manage` over a cache as the hub's clients make it. */
import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sizeInWords, timeInWords } from "../src/cli/table";

const main = join(import.meta.dir, "../cmd/main.ts");
const commit = "0123456789abcdef0123456789abcdef01234567";
let cache: string;

beforeEach(() => {
  cache = mkdtempSync(join(tmpdir(), "mlxlm-manage-"));
});
afterEach(() => rmSync(cache, { recursive: true, force: true }));

/** A repo with one snapshot of the named files, each of so many bytes. */
function addRepo(folder: string, files: Record<string, number>): void {
  const root = join(cache, folder);
  for (const part of ["blobs", "refs", `snapshots/${commit}`]) mkdirSync(join(root, part), { recursive: true });
  writeFileSync(join(root, "refs/main"), commit);
  for (const [name, size] of Object.entries(files)) {
    writeFileSync(join(root, "blobs", `blob-${name}`), new Uint8Array(size));
    const hour = new Date(Date.now() - 3 * 3600 * 1000);
    utimesSync(join(root, "blobs", `blob-${name}`), hour, hour);
    symlinkSync(`../../blobs/blob-${name}`, join(root, "snapshots", commit, name));
  }
}

async function manage(words: string[], stdin = "") {
  const child = Bun.spawn(["bun", main, "manage", ...words], {
    stdin: new Blob([stdin]),
    stdout: "pipe",
    stderr: "pipe",
    env: { ...process.env, HF_HUB_CACHE: cache },
  });
  const [out, problems, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { out, problems, code };
}

describe("manage", () => {
  beforeEach(() => {
    addRepo("models--mlx-community--Small-4bit", { "config.json": 500, "model.safetensors": 1_234_000 });
    addRepo("models--someone--other", { "config.json": 20 });
  });

  test("lists what matches, in mlx-lm's columns", async () => {
    const { out, code } = await manage(["--scan"]);
    expect(code).toBe(0);
    const path = join(cache, "models--mlx-community--Small-4bit");
    const [sentence, headings, dashes, row, ...rest] = out.split("\n");
    expect(sentence).toBe('Scanning Hugging Face cache for models with pattern "mlx".');
    expect(headings).toStartWith(
      "REPO ID                  REPO TYPE SIZE ON DISK NB FILES LAST_ACCESSED LAST_MODIFIED ",
    );
    expect(dashes).toMatch(/^(-+ )+$/);
    expect(row).toBe(`mlx-community/Small-4bit model             1.2M        2 3 hours ago   3 hours ago   ${path} `);
    expect(rest).toEqual([""]);
    expect((await manage(["--scan", "--pattern", ""])).out).toContain("someone/other");
  });

  test("deletes after a yes, and only what matches", async () => {
    const { out, code } = await manage(["--delete"], "perhaps\nyes\n");
    expect(code).toBe(0);
    expect(out).toContain("Invalid input. Must be one of: yes/no/y/n or empty for no");
    expect(out).toEndWith("Deleting mlx-community/Small-4bit...\n\nModel(s) deleted successfully.\n");
    expect(readdirSync(cache)).toEqual(["models--someone--other"]);
  });

  for (const [name, answer] of [
    ["a no", "n\n"],
    ["an empty line", "\n"],
    ["no answer at all", ""],
  ] as const) {
    test(`keeps everything after ${name}`, async () => {
      const { out, code } = await manage(["--delete"], answer);
      expect(code).toBe(0);
      expect(out).toEndWith("Deletion cancelled - no changes made.\n");
      expect(readdirSync(cache).length).toBe(2);
    });
  }

  test("asks nothing with --yes, and says what it did as JSON", async () => {
    const { out, code } = await manage(["--delete", "--yes", "--json", "--pattern", "other"]);
    expect(code).toBe(0);
    expect(JSON.parse(out)).toMatchObject({ deleted: 1, repos: [{ id: "someone/other", files: 1, size: 20 }] });
    expect(existsSync(join(cache, "models--someone--other"))).toBe(false);
  });

  test("counts files in folders, and those that several snapshots have once, as Python does", async () => {
    addRepo("datasets--mlx--data", { "a.json": 100, "b.json": 50 });
    const snapshots = join(cache, "datasets--mlx--data/snapshots");
    mkdirSync(join(snapshots, commit, "default/train"), { recursive: true });
    symlinkSync("../../../../blobs/blob-a.json", join(snapshots, commit, "default/train/a.json"));
    writeFileSync(join(snapshots, commit, "default/mark"), "1234567");
    mkdirSync(join(snapshots, "f".repeat(40)));
    symlinkSync("../../blobs/blob-b.json", join(snapshots, "f".repeat(40), "b.json"));
    symlinkSync(".", join(snapshots, commit, "loop"));
    const { out } = await manage(["--scan", "--json", "--pattern", "mlx/data"]);
    expect(JSON.parse(out).repos).toMatchObject([{ id: "mlx/data", type: "dataset", files: 3, size: 157 }]);
  });

  test("says where nothing matches", async () => {
    expect((await manage(["--delete", "--pattern", "absent"])).out).toEndWith(
      'No models found matching pattern "absent"\n',
    );
  });

  test("goes on where a repo is broken, and names it", async () => {
    mkdirSync(join(cache, "models--mlx-community--broken"));
    const { out, problems, code } = await manage(["--scan"]);
    expect(code).toBe(0);
    expect(out).toContain("Small-4bit");
    expect(problems).toContain("broken");
  });

  test("without a cache, and without a wish", async () => {
    rmSync(cache, { recursive: true });
    expect(await manage(["--scan"])).toMatchObject({
      code: 3,
      problems: expect.stringContaining("no Hugging Face cache"),
    });
    expect(await manage([])).toMatchObject({ code: 2, problems: expect.stringContaining("--scan or --delete") });
  });
});

test("sizes and times in words", () => {
  expect([0, 999, 1000, 1_234_567, 5e9].map(sizeInWords)).toEqual(["0.0", "999.0", "1.0K", "1.2M", "5.0G"]);
  const now = new Date("2026-01-31T00:00:00Z");
  const ago = (seconds: number) => timeInWords(new Date(now.getTime() - seconds * 1000), now);
  expect([5, 59, 60, 3600, 86_400 * 6, 86_400 * 20, 86_400 * 400].map(ago)).toEqual([
    "a few seconds ago",
    "59 seconds ago",
    "1 minute ago",
    "1 hour ago",
    "6 days ago",
    "3 weeks ago",
    "1 year ago",
  ]);
});
