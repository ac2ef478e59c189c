import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { checkedEntries, entriesOf } from "./entries";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-entries-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("entries of what is shared", () => {
  test("are folders, files and links, in the order in which they can be made", async () => {
    const root = join(folder, "models--a--b");
    mkdirSync(join(root, "blobs"), { recursive: true });
    mkdirSync(join(root, "snapshots/c"), { recursive: true });
    writeFileSync(join(root, "blobs/x"), "xyz");
    writeFileSync(join(root, "blobs/y.incomplete"), "x");
    symlinkSync("../../blobs/x", join(root, "snapshots/c/config.json"));
    symlinkSync("../../blobs/gone", join(root, "snapshots/c/gone"));
    expect(await entriesOf(root)).toEqual([
      { type: "folder", path: "blobs" },
      { type: "folder", path: "snapshots" },
      { type: "folder", path: "snapshots/c" },
      { type: "file", path: "blobs/x", size: 3 },
      { type: "link", path: "snapshots/c/config.json", to: "../../blobs/x" },
    ]);
  });

  test("are what links lead to, where that is elsewhere", async () => {
    const snapshot = join(folder, "models--a--b/snapshots/c");
    expect(await entriesOf(snapshot)).toEqual([{ type: "file", path: "config.json", size: 3 }]);
    expect(await entriesOf(join(snapshot, "config.json"))).toEqual([{ type: "file", path: ".", size: 3 }]);
  });

  test.each<[string, unknown]>([
    ["no list", { type: "file" }],
    ["another kind", [{ type: "pipe", path: "a" }]],
    ["a file above", [{ type: "file", path: "../a", size: 1 }]],
    ["a file anywhere", [{ type: "file", path: "/etc/passwd", size: 1 }]],
    ["a way round", [{ type: "file", path: "a/../../b", size: 1 }]],
    ["the folder itself", [{ type: "folder", path: "." }]],
    ["no name", [{ type: "file", path: "", size: 1 }]],
    ["a link above", [{ type: "link", path: "a/b", to: "../../c" }]],
    ["a link anywhere", [{ type: "link", path: "a", to: "/etc" }]],
    ["a size below nothing", [{ type: "file", path: "a", size: -1 }]],
    [
      "a file behind a link",
      [
        { type: "link", path: "a", to: "b" },
        { type: "file", path: "a/c", size: 1 },
      ],
    ],
    [
      "one path twice",
      [
        { type: "file", path: "a", size: 1 },
        { type: "file", path: "a", size: 1 },
      ],
    ],
  ])("that another rank sent are refused: %s", (_, sent) => {
    expect(() => checkedEntries(sent)).toThrow("cannot be used");
  });
});
