/**
 * What a call costs by our ABI (int32 slots, results returned, one call that frees a scope) and by mlx-c's (pointers, an
 * out-parameter, a call to free each): 500 additions on 1 × 1, built and freed, never evaluated. In turn.
 *
 *   bun bench/abi.ts [--rounds 15]      needs g++, and the SDK that `bun run build` fetched
 */
import { dlopen, type Pointer } from "bun:ffi";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import * as mx from "../src/mlx";
import { median } from "./median";

const { values } = parseArgs({ options: { rounds: { type: "string", default: "15" } } });
const count = 500;

/** The shim beside the library that the façade has loaded. */
function buildShim(folder: string): string {
  const root = join(import.meta.dir, "..");
  const [header] = new Bun.Glob(".cache/sdk/**/include/mlx/mlx.h").scanSync({ cwd: root, dot: true });
  if (!header) throw new Error("there is no SDK in .cache: run `bun run build` first");
  const library = join(folder, "shim.so");
  const source = join(import.meta.dir, "abi-shim.cpp");
  const include = join(root, header, "../..");
  const native = join(root, "dist/native/lib");
  const built = Bun.spawnSync([
    ...["g++", "-std=c++20", "-O2", "-shared", "-fPIC", source, `-I${include}`, `-L${native}`, "-lmlx"],
    ...[`-Wl,-rpath,${native}`, "-o", library],
  ]);
  if (built.exitCode !== 0) throw new Error(built.stderr.toString());
  return library;
}

const folder = mkdtempSync(join(tmpdir(), "mlxlm-abi-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
mx.setDefaultDevice("cpu");
const one = mx.ones([1, 1]);
const { symbols: shim } = dlopen(buildShim(folder), {
  shim_ones: { args: ["i32", "i32"], returns: "ptr" },
  shim_add: { args: ["ptr", "ptr", "ptr"], returns: "i32" },
  shim_free: { args: ["ptr"], returns: "i32" },
});
const theirOne = shim.shim_ones(1, 1) as Pointer;
const out = new BigUint64Array(new ArrayBuffer(8));

function ours(): number {
  const began = performance.now();
  mx.scope(() => {
    let x = one;
    for (let i = 0; i < count; i++) x = x.add(one);
  });
  return ((performance.now() - began) * 1000) / count;
}

function theirs(): number {
  const began = performance.now();
  const made: Pointer[] = [];
  let x: Pointer = theirOne;
  for (let i = 0; i < count; i++) {
    out[0] = 0n;
    shim.shim_add(out, x, theirOne);
    x = Number(out[0]) as Pointer;
    made.push(x);
  }
  for (const pointer of made) shim.shim_free(pointer);
  return ((performance.now() - began) * 1000) / count;
}

const times = { ours: [] as number[], theirs: [] as number[] };
for (let round = 0; round < Number(values.rounds) * 20; round++) {
  times.ours.push(ours());
  times.theirs.push(theirs());
}
const [a, b] = [median(times.ours), median(times.theirs)];
console.log(
  `an addition, built and freed: slots and a scope ${a.toFixed(3)} µs, pointers ${b.toFixed(3)} µs, ratio ${(b / a).toFixed(2)}`,
);
