/**
 * A script of this folder, or of test/, as several ranks of this machine: one on each GPU, or on one that they share, or over TCP
 * where there is none. The first rank's output is shown.
 *
 *   bun bench/ranks.ts 2 bench/decode.ts llama-8b --bits 4
 *   bun bench/ranks.ts 2 bench/decode.py llama-8b --bits 4     mlx-lm's side
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { listedHosts } from "../src/cli/launch/hosts";
import { graphOperationsFor, plan } from "../src/cli/launch/plan";
import { freePorts } from "../src/cli/launch/ports";
import * as mx from "../src/mlx";

const [count, script, ...words] = process.argv.slice(2);
if (!count || !script) throw new Error("bun bench/ranks.ts RANKS SCRIPT …");
const { hosts } = listedHosts(Array(Number(count)).fill("127.0.0.1").join());
const gpus = mx.deviceCount("gpu");
const isPython = script.endsWith(".py");
const ranks = plan(hosts, {
  backend: gpus >= Number(count) ? "nccl" : "tcp",
  connectionsPerIp: 1,
  gpus: process.env.CUDA_VISIBLE_DEVICES,
  key: crypto.randomUUID(),
  graphOperations:
    process.env.MLX_MAX_OPS_PER_BUFFER ??
    (isPython || script.includes("training") ? undefined : graphOperationsFor([script])),
  verbose: false,
  cores: availableParallelism(),
  freePorts,
});
const folder = mkdtempSync(join(tmpdir(), "mlxlm-ranks-"));
const inFile = ([name, text]: [string, string]) => {
  const path = join(folder, name);
  writeFileSync(path, text);
  return [name, path];
};
const running = ranks.map(({ rank, env, files }) =>
  Bun.spawn([isPython ? "python3" : process.execPath, script, ...words], {
    env: {
      ...process.env,
      MLXLM_SHARED_GPU: gpus > 0 && gpus < Number(count) ? "1" : "0",
      ...env,
      ...Object.fromEntries(Object.entries(files).map(inFile)),
    },
    stdout: rank === 0 ? "inherit" : "ignore",
    stderr: "inherit",
  }),
);
// Who is left alone would wait for ever.
for (const { exited } of running) {
  void exited.then((code) => {
    if (code !== 0) for (const other of running) other.kill("SIGKILL");
  });
}
const codes = await Promise.all(running.map(({ exited }) => exited));
rmSync(folder, { recursive: true });
process.exit(codes.find((code) => code !== 0) ?? 0);
