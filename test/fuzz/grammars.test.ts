import { expect, test } from "bun:test";
import { join } from "node:path";
import { supervise } from "./supervise";

test("200 grammars by chance end in a walk or in xgrammar's words", async () => {
  const { sound, refused } = await supervise(join(import.meta.dir, "grammars.ts"), 200, 1);
  expect(sound).toBeGreaterThan(80);
  expect(refused).toBeGreaterThan(20);
}, 120_000);
