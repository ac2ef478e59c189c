/**
 * From the command line to the first token, as whole processes, in turn with mlx-lm on the same files.
 *
 *   bun bench/start.ts --python PATH [--runs 7]
 */
import { join } from "node:path";
import { parseArgs } from "node:util";
import { median } from "./median";

const { values } = parseArgs({
  options: { python: { type: "string", default: "python3" }, runs: { type: "string", default: "7" } },
});
const root = join(import.meta.dir, "..");
const mlxlm = join(root, "dist/mlxlm");
const words = ["generate", "--prompt", "What is 27 + 58?", "--max-tokens", "1"];

const commands = {
  "mlxlm --help": [mlxlm, "--help"],
  "mlx_lm.generate --help": [values.python, "-m", "mlx_lm", "generate", "--help"],
  "mlxlm, first token": [mlxlm, ...words, "--model", "demo"],
  "mlx-lm, first token": [values.python, "-m", "mlx_lm", ...words, "--model", join(root, "src/demo/model")],
};

const times: Record<string, number[]> = {};
for (let run = 0; run <= Number(values.runs); run++) {
  for (const [name, command] of Object.entries(commands)) {
    const began = performance.now();
    const { exitCode, stderr } = Bun.spawnSync(command, {
      stdout: "ignore",
      stderr: "pipe",
      env: { ...process.env, HF_HUB_OFFLINE: "1" },
    });
    if (exitCode !== 0) throw new Error(`${name}: ${stderr}`);
    // The first round fills the disk's caches, and mlxlm's own.
    times[name] = [...(times[name] ?? []), ...(run > 0 ? [performance.now() - began] : [])];
  }
}
for (const [name, runs] of Object.entries(times)) {
  console.log(`${name.padEnd(24)} ${median(runs).toFixed(0)} ms  (${runs.map((ms) => ms.toFixed(0)).join(" ")})`);
}
const ratio = (a: string, b: string) => (median(times[a]!) / median(times[b]!)).toFixed(1);
console.log(
  `help: ${ratio("mlx_lm.generate --help", "mlxlm --help")} times sooner, first token: ${ratio("mlx-lm, first token", "mlxlm, first token")} times sooner`,
);
