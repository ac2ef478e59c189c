import { expect, test } from "bun:test";
import { join } from "node:path";
import { supervise } from "./supervise";

test("60 malformed conversations with a hub end in a model or in words of ours", async () => {
  const { sound, refused } = await supervise(join(import.meta.dir, "hub-answers.ts"), 60, 1);
  expect(sound).toBeGreaterThan(5);
  expect(refused).toBeGreaterThan(20);
}, 120_000);
