/** Memory that can't be had is an error in words, at once, and the process goes on. */
import { describe, expect, test } from "bun:test";
import { totalmem } from "node:os";
import { join } from "node:path";
import * as mx from ".";

// The generator keeps one key for good.
mx.random.seed(1);

const onCpu = process.platform === "linux" && mx.defaultDevice() === "cpu";

test("what is available is no more than the machine and its swap have", () => {
  expect(mx.availableMemory()).toBeGreaterThan(0);
  if (process.platform !== "linux") expect(mx.availableMemory()).toBe(totalmem());
});

describe.skipIf(!onCpu)("on the CPU", () => {
  test("memory that is free between blocks in use goes back to the system", () => {
    const side = 96;
    const [block, count] = [side * side * 4, 3000];
    const resident = () => process.memoryUsage.rss();
    const held = mx.scope(() =>
      Array.from({ length: count }, (_, i) => {
        const made = mx.full([side, side], i);
        mx.evaluate(made);
        return made;
      }),
    );
    // The last block lies at the heap's end: what is free below it stays with the process.
    const last = held.pop()!;
    for (const one of held) one.dispose();
    const before = resident();
    mx.releaseMemory();
    expect(before - resident()).toBeGreaterThan((count * block) / 2);
    expect(mx.scope(() => last.at(0, 0).item())).toBe(count - 1);
    last.dispose();
  });

  test("a tensor larger than the memory is refused before it is used", () => {
    const before = mx.liveHandles();
    const rows = Math.ceil(mx.availableMemory() / 2 ** 20);
    mx.scope(() => {
      for (const make of [
        () => mx.zeros([rows, 2 ** 20]).add(1),
        () => mx.zeros([2 ** 30, 2 ** 30]).add(1),
        () => mx.random.normal({ shape: [rows, 2 ** 20] }),
      ]) {
        expect(() => mx.evaluate(make())).toThrow(/unable to allocate .* of memory/);
      }
      expect(mx.ones([2]).add(1).toList()).toEqual([2, 2]);
    });
    expect(mx.liveHandles()).toBe(before);
  });

  test.skipIf(!Bun.which("prlimit"))("where the limit of addresses is reached, small ones are refused too", () => {
    const script = `
      import * as mx from "${join(import.meta.dir, "index.ts")}";
      const held = [];
      try { for (;;) { const made = mx.ones([2 ** 22]); mx.evaluate(made); held.push(made); } }
      catch (error) { console.log(error.name, error.message); }
      held.forEach((tensor) => tensor.dispose());
      console.log(mx.ones([2]).add(1).toList().join());
    `;
    const run = Bun.spawnSync(["prlimit", `--as=${4 * 2 ** 30}`, process.execPath, "-e", script]);
    expect(run.stdout.toString()).toMatch(/^MlxError unable to allocate .*\n2,2\n$/);
    expect(run.exitCode).toBe(0);
  });
});
