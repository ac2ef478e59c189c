/** `mlxlm share`: three hosts, which are folders of this machine, of which the second has what is shared. */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chunkBytes } from "../../src/hub/share/content";
import { runRanks } from "./ranks";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-share-test-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test("repos go from cache to cache, files and folders to where they are wanted, and nothing goes twice", async () => {
  const results = await runRanks<Record<string, unknown>>("share-rank.ts", 3, { args: [folder] });
  const weights = chunkBytes + 12_345;
  const config = 23;
  for (const [rank, result] of results.entries()) {
    expect(result.outcomes).toEqual({
      first: { source: 1, files: 3, bytes: weights + config + 40, had: [] },
      again: { source: expect.any(Number), files: 0, bytes: 0, had: expect.any(Array) },
      // The new weights, and the commit that main stands for.
      update: { source: 1, files: 2, bytes: 9 + 40, had: [] },
      folder: { source: 1, files: 2, bytes: 2, had: [] },
      file: { source: 1, files: 1, bytes: 1, had: [] },
      same: { source: 1, files: 0, bytes: 0, had: [0, 2] },
      different: { message: "rank 2: /host-2/other exists already, and is something else", code: 2 },
      absent: { message: "no host has nowhere", code: 3 },
      bare: { message: "/host-1/bare has no files", code: 2 },
      blocked: { message: expect.stringMatching(/^rank 0: .*rows\.jsonl: a file is where a folder is to be/), code: 2 },
    });
    expect(result.isWhole).toBe(true);
    expect(result.ref).toBe("b".repeat(40));
    expect(result.snapshots).toEqual(
      [weights, 9].map((size) => [
        ["config.json", config],
        ["model.safetensors", size],
      ]),
    );
    expect(result.copy).toEqual(rank === 1 ? null : ["empty", "nothing", "rows.jsonl"]);
    expect(result.left).toEqual([]);
    expect(result.handles).toBe(0);
  }
}, 60_000);
