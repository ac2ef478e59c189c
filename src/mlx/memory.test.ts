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
    // In a process of its own, so that the last block lies at the heap's end: what is free below it stays with the process.
    const script = `
      import * as mx from "${join(import.meta.dir, "index.ts")}";
      const held = mx.scope(() =>
        Array.from({ length: 3000 }, (_, i) => {
          const made = mx.full([96, 96], i);
          mx.evaluate(made);
          return made;
        }),
      );
      const last = held.pop();
      for (const one of held) one.dispose();
      const before = process.memoryUsage.rss();
      mx.releaseMemory();
      console.log(before - process.memoryUsage.rss(), mx.scope(() => last.at(0, 0).item()));
    `;
    const [given, kept] = Bun.spawnSync([process.execPath, "-e", script]).stdout.toString().split(" ").map(Number);
    expect(given).toBeGreaterThan((3000 * 96 * 96 * 4) / 2);
    expect(kept).toBe(2999);
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
