import { afterAll, expect, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { EmbeddedBundle } from "./embedded-files";
import { unpackedBundle } from "./unpacked-bundle";

const scratch = mkdtempSync(join(tmpdir(), "mlxlm-unpack-"));
afterAll(() => rmSync(scratch, { recursive: true }));

const texts = { "lib/a.so": "the library", "template.jinja": "{{ messages }}" };

const bundle: EmbeddedBundle = {
  id: "0123456789abcdef",
  files: Object.entries(texts).map(([name, text]) => {
    const path = join(scratch, name.replace("/", "-"));
    writeFileSync(path, Bun.zstdCompressSync(Buffer.from(text)));
    return { name, path, size: text.length, sha256: new Bun.CryptoHasher("sha256").update(text).digest("hex") };
  }),
};

let count = 0;
const freshParent = () => join(scratch, `cache-${count++}`);

function expectWhole(parent: string): string {
  const folder = unpackedBundle(parent, bundle);
  for (const [name, text] of Object.entries(texts)) expect(readFileSync(join(folder, name), "utf8")).toBe(text);
  expect(readdirSync(parent).filter((name) => name.endsWith(".lock"))).toEqual([]);
  return folder;
}

test("files are whole, for their owner alone, and written once", () => {
  const parent = freshParent();
  const folder = expectWhole(parent);
  expect(statSync(parent).mode & 0o777).toBe(0o700);
  expect(statSync(folder).mode & 0o777).toBe(0o700);
  const before = statSync(join(folder, "lib/a.so")).ino;
  expectWhole(parent);
  expect(statSync(join(folder, "lib/a.so")).ino).toBe(before);
});

test("a pipe in the place of the manifest is no reason to wait", () => {
  const parent = freshParent();
  const manifest = readdirSync(expectWhole(parent)).find((name) => name.endsWith(".json"))!;
  const path = join(parent, bundle.id, manifest);
  rmSync(path);
  expect(Bun.spawnSync(["mkfifo", path]).exitCode).toBe(0);
  expectWhole(parent);
});

test("a file of the right size and time with other bytes is replaced", () => {
  const parent = freshParent();
  const path = join(expectWhole(parent), "template.jinja");
  const { atime, mtime } = statSync(path);
  writeFileSync(path, "\0".repeat(texts["template.jinja"].length));
  utimesSync(path, atime, mtime);
  expectWhole(parent);
});

test("a copy, a missing file, a folder in a file's place and a torn manifest are mended", () => {
  const parent = freshParent();
  const folder = expectWhole(parent);
  const spoil: (() => void)[] = [
    () => utimesSync(join(folder, "lib/a.so"), 1, 1),
    () => rmSync(join(folder, "lib"), { recursive: true }),
    () => writeFileSync(join(folder, "lib/a.so"), ""),
    () => {
      rmSync(join(folder, "template.jinja"));
      mkdirSync(join(folder, "template.jinja/deep"), { recursive: true });
    },
    () => {
      rmSync(join(folder, "lib"), { recursive: true });
      writeFileSync(join(folder, "lib"), "a file");
    },
    () => {
      rmSync(join(folder, "lib"), { recursive: true });
      symlinkSync("/nowhere at all", join(folder, "lib"));
    },
    () => writeFileSync(join(folder, "manifest.json"), "{"),
    () => writeFileSync(join(folder, "manifest.json"), "null"),
    () => {
      rmSync(folder, { recursive: true });
      writeFileSync(folder, "a file");
    },
  ];
  for (const one of spoil) {
    one();
    expectWhole(parent);
  }
});

test("a folder that others can write is closed, and its files looked at again", () => {
  const parent = freshParent();
  const folder = expectWhole(parent);
  for (const path of [parent, folder]) chmodSync(path, 0o777);
  expectWhole(parent);
  for (const path of [parent, folder]) expect(statSync(path).mode & 0o777).toBe(0o700);
});

test("another user's folder is not used", () => {
  if (process.getuid?.() !== 0) return expect(() => unpackedBundle("/", bundle)).toThrow();
  const parent = freshParent();
  const folder = expectWhole(parent);
  Bun.spawnSync(["chown", "-R", "12345", parent]);
  expect(() => unpackedBundle(parent, bundle)).toThrow("belongs to another user");
  // In a folder of our own, what another user put there gives way.
  Bun.spawnSync(["chown", "0", parent]);
  expectWhole(parent);
  expect(statSync(folder).uid).toBe(0);
});

test("a copy that can only be read is as good as long as its bytes are right", () => {
  const parent = freshParent();
  const folder = expectWhole(parent);
  writeFileSync(join(folder, "manifest.json"), "{}");
  // The lock can't be taken where a folder has its name.
  mkdirSync(join(parent, `${bundle.id}.lock`));
  expect(unpackedBundle(parent, bundle)).toBe(folder);
  writeFileSync(join(folder, "template.jinja"), "other");
  expect(() => unpackedBundle(parent, bundle)).toThrow();
});

test("the lock and the partial files of a process that was killed are in nobody's way", () => {
  const parent = freshParent();
  const gone = Bun.spawnSync(["true"]).pid;
  mkdirSync(join(parent, bundle.id, "lib"), { recursive: true, mode: 0o700 });
  const partial = join(parent, bundle.id, `lib/a.so.partial-${gone}`);
  writeFileSync(partial, "half");
  writeFileSync(join(parent, `${bundle.id}.lock`), `${gone}`);
  expectWhole(parent);
  expect(existsSync(partial)).toBe(false);
});

test("folders that were not used for a month go, at a later start; young and strange ones stay", () => {
  const parent = freshParent();
  const folder = expectWhole(parent);
  const make = (name: string, days: number) => {
    mkdirSync(join(parent, name));
    const then = new Date(Date.now() - days * 24 * 3600 * 1000);
    utimesSync(join(parent, name), then, then);
  };
  make("aaaaaaaaaaaaaaaa", 31);
  make("bbbbbbbbbbbbbbbb", 29);
  make("cccccccccccccccc.123.456", 2);
  make("dddddddddddddddd.123.456", 0);
  make("answers", 400);
  expectWhole(parent);
  expect(readdirSync(parent)).toContain("aaaaaaaaaaaaaaaa");
  const yesterday = new Date(Date.now() - 25 * 3600 * 1000);
  utimesSync(join(folder, "manifest.json"), yesterday, yesterday);
  expectWhole(parent);
  expect(readdirSync(parent).sort()).toEqual(
    [bundle.id, "answers", "bbbbbbbbbbbbbbbb", "dddddddddddddddd.123.456"].sort(),
  );
  expect(Date.now() - statSync(join(folder, "manifest.json")).mtimeMs).toBeLessThan(60_000);
});

test("a bundle that does not fit its hash is refused", () => {
  const [first, ...rest] = bundle.files;
  const damaged = { ...bundle, files: [{ ...first!, sha256: "0".repeat(64) }, ...rest] };
  expect(() => unpackedBundle(freshParent(), damaged)).toThrow("is damaged");
});
