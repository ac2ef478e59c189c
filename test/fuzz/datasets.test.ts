import { expect, test } from "bun:test";
import { join } from "node:path";
import { supervise } from "./supervise";

test("300 malformed datasets end in rows or in words of ours", async () => {
  const { sound, refused } = await supervise(join(import.meta.dir, "datasets.ts"), 300, 1);
  expect(sound).toBeGreaterThan(20);
  expect(refused).toBeGreaterThan(150);
}, 60_000);
