/** `mlxlm doctor` on this machine. */
import { expect, test } from "bun:test";
import { join } from "node:path";
import { TerminalProgram } from "./terminal";

const main = join(import.meta.dir, "../cmd/main.ts");

function doctor(words: string[], env: Record<string, string>) {
  const child = Bun.spawnSync([process.execPath, main, "doctor", ...words], { env: { ...process.env, ...env } });
  return { code: child.exitCode, out: child.stdout.toString(), problems: child.stderr.toString() };
}

test("finds this machine able, and says so as JSON too", () => {
  const { code, out } = doctor([], { HF_HUB_OFFLINE: "1" });
  expect(out).toMatch(/^Program\n {2}ok {3}version {8}mlxlm /);
  expect(out).toMatch(/native library loads: /);
  expect(code).toBe(0);
  const { ok, findings, facts } = JSON.parse(doctor(["--json"], { HF_HUB_OFFLINE: "1" }).out);
  expect(ok).toBe(true);
  expect(facts.memory).toBeGreaterThan(0);
  expect(findings.length).toBeGreaterThan(8);
});

test("ends with 1 where something fails: a wrong variable, a missing library", () => {
  const wrong = doctor([], { HF_HUB_OFFLINE: "1", MLXLM_CPU_ISA: "axv" });
  expect([wrong.code, wrong.problems]).toEqual([1, ""]);
  expect(wrong.out).toContain("FAIL MLXLM_CPU_ISA");
  const missing = doctor([], { HF_HUB_OFFLINE: "1", MLXLM_NATIVE: "/nowhere" });
  expect(missing.code).toBe(1);
  expect(missing.out).toMatch(/FAIL native library the native library is missing: \/nowhere/);
});

test("asks a hub that does not answer for no longer than three seconds", async () => {
  const server = Bun.serve({ port: 0, idleTimeout: 0, fetch: () => new Promise<Response>(() => {}) });
  const began = performance.now();
  const child = Bun.spawn([process.execPath, main, "doctor"], {
    env: { ...process.env, HF_HUB_OFFLINE: "", HF_ENDPOINT: `http://127.0.0.1:${server.port}` },
    stdout: "pipe",
  });
  const out = await child.stdout.text();
  server.stop(true);
  expect(out).toContain("it does not answer within 3 s");
  expect(performance.now() - began).toBeLessThan(10_000);
});

test.each([40, 80])("fits %i columns, with signs on a terminal", async (columns) => {
  const page = new TerminalProgram([process.execPath, main, "doctor"], { columns, env: { MLXLM_CPU_ISA: "axv" } });
  expect(await page.ended()).toBe(1);
  const lines = Bun.stripANSI(page.screen).split(/\r?\n/);
  const tooWide = lines.filter((line) => Bun.stringWidth(line) > columns && line.trim().split(" ").length > 2);
  expect(tooWide).toEqual([]);
  expect(page.screen).toMatch(/✗.*MLXLM_CPU_ISA/);
  expect(page.screen).toContain("\x1b[32m✓");
});
