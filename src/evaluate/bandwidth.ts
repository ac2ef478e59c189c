/** How fast this machine reads weights: what bounds the generation of one token after the other. */
import { mkdir, writeFile } from "node:fs/promises";
import { availableParallelism, loadavg } from "node:os";
import { dirname, join } from "node:path";
import { z } from "zod";
import { version } from "../../package.json";
import { replaceFile } from "../atomic-file";
import { cacheFolder } from "../embedded";
import { environment, type VariableName } from "../environment";
import { readText } from "../json-file";
import * as mx from "../mlx";

/** Weights of four bits, as most models have them, or of 16. */
export type WeightKind = "4-bit" | "bfloat16";

export interface Bandwidth {
  /** Bytes a second. */
  bytes_per_second: number;
  kind: WeightKind;
  device: string;
  /** Whether it was measured at an earlier time. */
  cached: boolean;
  /** Other programs took part of it. */
  busy: boolean;
}

/** Larger than the caches of processors. */
const matrixBytes = 128 * 2 ** 20;
const columns = 4096;
const groupSize = 64;
const runs = 12;

/** Programs that are waiting to run, as a share of the cores, from which on a machine is busy. */
const busyShare = 1.5;

const Saved = z.record(z.string(), z.number().positive());

const savedFile = () => join(cacheFolder(), "bandwidth.json");

/** Native code reads it. */
const threadsVariable: VariableName = "MLXLM_THREADS";

/** What a measurement holds for. */
function keyOf(kind: WeightKind, device: string): string {
  const threads = environment(threadsVariable) ?? availableParallelism();
  return [version, device, ...(mx.defaultDevice() === "cpu" ? [`${threads} threads`] : []), kind].join(", ");
}

async function saved(): Promise<Record<string, number>> {
  const text = await readText(savedFile()).catch(() => null);
  try {
    return Saved.parse(JSON.parse(text ?? "{}"));
  } catch {
    return {};
  }
}

/** As it was measured before, on this device with so many threads; else measured now, in less than a second. */
export async function bandwidth(kind: WeightKind): Promise<Bandwidth> {
  const device = String(mx.deviceInfo().device_name ?? mx.defaultDevice());
  const key = keyOf(kind, device);
  const known = await saved();
  if (known[key] !== undefined) return { bytes_per_second: known[key], kind, device, cached: true, busy: false };
  const measured = Math.round(measure(kind));
  const busy = loadavg()[0]! > busyShare * availableParallelism();
  const path = savedFile();
  const keep = async () => {
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    const text = `${JSON.stringify({ ...(await saved()), [key]: measured }, null, 2)}\n`;
    await replaceFile(path, (temporary) => writeFile(temporary, text));
  };
  // It is measured again where it cannot be kept, or is too little.
  if (!busy) await keep().catch(() => {});
  return { bytes_per_second: measured, kind, device, cached: false, busy };
}

/** Bytes a second of the best of some products of one row with a matrix. */
function measure(kind: WeightKind): number {
  const held = mx.scope(() => {
    const rows = Math.floor(matrixBytes / (kind === "4-bit" ? columns / 2 : columns * 2));
    const x = mx.ones([1, columns], "bfloat16");
    if (kind === "bfloat16") return { x, parts: [mx.full([rows, columns], 0.5, "bfloat16")] };
    const scales = mx.full([rows, columns / groupSize], 0.01, "bfloat16");
    return { x, parts: [mx.full([rows, columns / 8], 0x12345678, "uint32"), scales, scales.multiply(2)] };
  });
  const { x, parts } = held;
  mx.eval(x, parts);
  mx.preferHugePages(parts);
  const bytes = parts.reduce((sum, part) => sum + part.nbytes, 0);
  const product = () => {
    const [w, scales, biases] = parts as [mx.Tensor, mx.Tensor?, mx.Tensor?];
    return scales ? mx.quantizedMatmul(x, w, scales, biases!, { bits: 4, groupSize }) : x.matmul(w.transpose());
  };
  let best = Number.POSITIVE_INFINITY;
  for (let run = 0; run <= runs; run++) {
    const began = performance.now();
    mx.scope(() => mx.eval(product()));
    // The first one warms up.
    if (run > 0) best = Math.min(best, performance.now() - began);
  }
  mx.release(held);
  return (bytes / best) * 1000;
}
