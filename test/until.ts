/** Waits for what comes soon, however busy the machine is. */
import { expect } from "bun:test";

/** Returns once it is so; fails where it is not so within ten seconds. */
export async function until(isSo: () => boolean | Promise<boolean>): Promise<void> {
  for (const began = performance.now(); performance.now() - began < 10_000 && !(await isSo()); ) await Bun.sleep(5);
  expect(await isSo()).toBe(true);
}
