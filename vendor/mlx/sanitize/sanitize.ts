#!/usr/bin/env bun
/**
 * The CPU kernels under sanitizers, without MLX: every instruction set of this machine, on one to three threads.
 *
 *   bun run sanitize [address | thread]
 *
 * Exits with 1 where a sanitizer or a comparison finds something.
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { fail, run, toolchain } from "../toolchain";

interface Check {
  /** What -fsanitize= gets. */
  sanitizers: string;
  /** A task of the driver that must be caught, and what is then said. */
  fault: string;
  caught: RegExp;
  /** The tasks that must come through. */
  task: string[];
}

const checks: Record<string, Check> = {
  address: {
    sanitizers: "address,undefined",
    fault: "past-the-end",
    caught: /AddressSanitizer: SEGV|AddressSanitizer: use-after-poison/,
    task: [],
  },
  thread: { sanitizers: "thread", fault: "race", caught: /ThreadSanitizer: data race/, task: ["few"] },
};

const instructionSets = ["plain", "avx2", "avx512", "avx512_bf16"];
// Keys of one head are shared out only where threads outnumber heads; 3 also outnumber the cores of small machines.
const threadCounts = [1, 2, 3];

/** A run that is longer than this hangs. */
const timeout = 20 * 60_000;

const cache = join(import.meta.dir, "../../../.cache");

function build(name: string, { sanitizers }: Check): string {
  const { cmake, ninja } = toolchain(cache);
  const folder = join(cache, "build", `sanitize-${name}`);
  mkdirSync(folder, { recursive: true });
  const settings = [`-DCMAKE_MAKE_PROGRAM=${ninja}`, `-DMLXLM_SANITIZERS=${sanitizers}`];
  run([cmake, "-S", import.meta.dir, "-B", folder, "-G", "Ninja", ...settings]);
  run([cmake, "--build", folder]);
  return join(folder, "check");
}

function start(binary: string, task: string[], env: Record<string, string>) {
  const options = { TSAN_OPTIONS: "halt_on_error=1", UBSAN_OPTIONS: "print_stacktrace=1" };
  const result = Bun.spawnSync([binary, ...task], {
    env: { ...process.env, ...options, ...env },
    stdout: "pipe",
    stderr: "pipe",
    timeout,
  });
  return { code: result.exitCode, output: `${result.stdout}${result.stderr}`.trim() };
}

/** Runs everything of one check; says how many of its runs found something. */
function findings(name: string, check: Check): number {
  const binary = build(name, check);
  const fault = start(binary, [check.fault], { MLXLM_THREADS: "2" });
  if (fault.code === 0 || !check.caught.test(fault.output)) {
    fail(`${check.sanitizers}: the fault "${check.fault}" was not caught; exit code ${fault.code}\n${fault.output}`);
  }
  console.log(`${check.sanitizers}: ${check.fault} is caught`);

  let found = 0;
  for (const isa of instructionSets) {
    if (start(binary, ["isa"], { MLXLM_CPU_ISA: isa }).output !== isa) {
      console.log(`${check.sanitizers}, ${isa}: not on this machine`);
      continue;
    }
    for (const threads of threadCounts) {
      const began = performance.now();
      const { code, output } = start(binary, check.task, { MLXLM_CPU_ISA: isa, MLXLM_THREADS: String(threads) });
      const seconds = Math.round((performance.now() - began) / 1000);
      const said = code === 0 ? output : `exit code ${code ?? "none: it hung"}\n${output}`;
      console.log(`${check.sanitizers}, ${isa}, MLXLM_THREADS=${threads}, ${seconds} s: ${said}`);
      if (code !== 0) found++;
    }
  }
  return found;
}

const wanted = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(checks);
let found = 0;
for (const name of wanted) {
  const check = checks[name];
  if (!check) fail(`no sanitizer "${name}": one of ${Object.keys(checks).join(", ")}`);
  found += findings(name, check);
}
process.exitCode = found > 0 ? 1 : 0;
