/** Files that lie in memory, and change there. */
import { afterAll, expect, test } from "bun:test";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as mx from ".";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-mapped-"));
afterAll(() => rmSync(folder, { recursive: true }));

const length = 1_000_000;

function file(name: string): string {
  const path = join(folder, name);
  writeFileSync(path, new Uint8Array(length).fill(1));
  return path;
}

const start = 4096;
const mapped = (path: string) => mx.mapFile(path, start, [length - start]);

test("a file that is cut while it is mapped is an error, until the mapping is gone", () => {
  const [path, other] = [file("cut"), file("whole")];
  const live = mx.liveHandles();
  mx.scope(() => {
    const [bytes, whole] = [mapped(path), mapped(other)];
    truncateSync(path, start + 10_000);
    expect(mx.scope(() => bytes.at(mx.slice(0, 9000)).sum().item())).toBe(9000);
    expect(() => bytes.sum().item()).toThrow(`${path} became shorter while it was in use`);
    // What any other tensor holds may have been made of it.
    expect(() => whole.toArray()).toThrow("became shorter");
    expect(() => mx.eval([whole.sum()])).toThrow("became shorter");
  });
  expect(mx.liveHandles()).toBe(live);
  mx.scope(() => expect(mapped(other).sum().item()).toBe(length - start));
});

test("it is said too where the mapping is gone by then", () => {
  const path = file("gone");
  const sum = mx.keep(
    mx.scope(() => {
      const bytes = mapped(path);
      truncateSync(path, 0);
      const sum = bytes.sum();
      mx.asyncEval([sum]);
      return sum;
    }),
  );
  expect(() => sum.item()).toThrow(`${path} became shorter`);
  mx.release(sum);
  expect(mx.scope(() => mx.ones([2]).sum().item())).toBe(2);
});

/** Runs a script with this façade as `mx`. */
async function run(script: string) {
  const source = `import * as mx from ${JSON.stringify(import.meta.dir)};${script}`;
  const child = Bun.spawn([process.execPath, "-e", source], { stdout: "pipe", stderr: "pipe" });
  await child.exited;
  return { code: child.exitCode, signal: child.signalCode, out: await new Response(child.stdout).text() };
}

test("other bus errors end the process as before", async () => {
  const script = `const held = mx.mapFile(${JSON.stringify(file("held"))}, ${start}, [10]);
    console.log(held.sum().item());
    process.kill(process.pid, "SIGBUS");
    setTimeout(() => console.log("went on"), 2000);`;
  const { code, signal, out } = await run(script);
  expect(out).toBe("10\n");
  expect([code === 0, signal === null && code === null]).toEqual([false, false]);
});
