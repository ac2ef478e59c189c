/** What the system does while JavaScript cannot: tried in processes of their own. */
import { describe, expect, test } from "bun:test";
import { join } from "node:path";

/** Holds its thread for ten seconds, as a long step does. */
const busy = `
  import { announceInterrupt, endOnSecond } from "${join(import.meta.dir, "system.ts")}";
  process.on("SIGINT", () => console.log("seen"));
  if (process.argv[2]) announceInterrupt(process.argv[2]);
  else endOnSecond("SIGINT");
  console.log("busy");
  const began = Date.now();
  while (Date.now() - began < Number(process.argv[1]));
  await Bun.sleep(200);
  process.exit(7);
`;

async function start(milliseconds: number, notice = "") {
  const words = [`${milliseconds}`, ...(notice ? [notice] : [])];
  const child = Bun.spawn([process.execPath, "-e", busy, ...words], { stdout: "pipe", stderr: "pipe" });
  const reader = child.stdout.getReader();
  await reader.read();
  return { child, reader };
}

test("a handler that wants more signals gets all of them", async () => {
  const handling = `
    import { endOnSecond } from "${join(import.meta.dir, "system.ts")}";
    process.on("SIGINT", () => {
      endOnSecond("SIGINT");
      console.log("seen");
    });
    endOnSecond("SIGINT");
    console.log("ready");
    await Bun.sleep(20_000);
  `;
  const child = Bun.spawn([process.execPath, "-e", handling], { stdout: "pipe" });
  const reader = child.stdout.getReader();
  const said = async () => new TextDecoder().decode((await reader.read()).value);
  expect(await said()).toBe("ready\n");
  for (let i = 0; i < 4; i++) {
    child.kill("SIGINT");
    expect(await said()).toBe("seen\n");
  }
  child.kill("SIGKILL");
});

describe("a signal in the middle of a step", () => {
  test("the second ends the process at once", async () => {
    const { child } = await start(10_000);
    const began = performance.now();
    // Two that come while the process has no turn are one.
    let code: number | null = null;
    while (code === null && performance.now() - began < 5000) {
      child.kill("SIGINT");
      code = await Promise.race([child.exited, Bun.sleep(100).then(() => null)]);
    }
    expect(code).toBe(130);
    expect(performance.now() - began).toBeLessThan(5000);
  });

  test("the first alone is the handler's, when the step is over", async () => {
    const { child, reader } = await start(2000);
    child.kill("SIGINT");
    expect(new TextDecoder().decode((await reader.read()).value)).toBe("seen\n");
    expect(await child.exited).toBe(7);
  });

  test("the first is announced at once, then the handler's; the second ends the process", async () => {
    const { child } = await start(10_000, "ending\n");
    const began = performance.now();
    child.kill("SIGINT");
    const said = child.stderr.getReader();
    expect(new TextDecoder().decode((await said.read()).value)).toBe("ending\n");
    child.kill("SIGINT");
    expect(await child.exited).toBe(130);
    expect(performance.now() - began).toBeLessThan(5000);

    const { child: short, reader } = await start(2000, "ending\n");
    short.kill("SIGINT");
    expect(new TextDecoder().decode((await reader.read()).value)).toBe("seen\n");
    expect(await short.exited).toBe(7);
    expect(await short.stderr.text()).toBe("ending\n");
  });
});

test("the end of the parent ends a process whose thread is held", async () => {
  const child = `
    import { endWithParent } from "${join(import.meta.dir, "system.ts")}";
    endWithParent(0);
    console.log("held");
    while (true);
  `;
  const shell = Bun.spawn(["sh", "-c", '"$0" -e "$1"; :', process.execPath, child], { stdout: "pipe" });
  const reader = shell.stdout.getReader();
  expect(new TextDecoder().decode((await reader.read()).value)).toBe("held\n");
  shell.kill("SIGKILL");
  // The pipe ends with the last process that holds it.
  const end = reader.read();
  expect((await Promise.race([end, Bun.sleep(10_000)]))?.done).toBe(true);
});
