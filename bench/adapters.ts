/**
 * What several adapters in one batch save: tokens a second of N requests with N different adapters side by side, over the
 * same requests one after the other, each with its adapter in the model for good, and beside a batch without adapters.
 *
 *   bun bench/adapters.ts [--rounds 5] [--adapters 4] [--rank 8] [--hidden 512] [--layers 8]
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { BatchStepper } from "../src/generate/batch";
import { LoneStepper } from "../src/generate/lone-stepper";
import type { Stepper } from "../src/generate/stepper";
import * as mx from "../src/mlx";
import { createModel, type LanguageModel } from "../src/models";
import { fuseProjections, holdTransposes, quantize } from "../src/nn";
import { applyAdapters } from "../src/tune/adapter-files";
import { AdapterPool, type PooledAdapter } from "../src/tune/adapter-pool";
import { randomAdapter } from "../test/adapter";
import { median } from "./median";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" },
    adapters: { type: "string", default: "4" },
    rank: { type: "string", default: "8" },
    hidden: { type: "string", default: "512" },
    layers: { type: "string", default: "8" },
  },
});
const [count, rank, hidden, layers] = [values.adapters, values.rank, values.hidden, values.layers].map(Number) as [
  number,
  number,
  number,
  number,
];
const tokens = 64;

async function model(): Promise<LanguageModel> {
  mx.random.seed(1);
  const made = await createModel(
    {
      ...{ model_type: "llama", hidden_size: hidden, num_hidden_layers: layers, intermediate_size: 3 * hidden },
      ...{ num_attention_heads: 8, num_key_value_heads: 4, rms_norm_eps: 1e-5, vocab_size: 32_000 },
    },
    "a benchmark",
  );
  mx.scope(() => quantize(made, { groupSize: 64, bits: 4 }));
  fuseProjections(made);
  holdTransposes(made);
  mx.eval(made.parameters());
  return made;
}

/** Seconds and tokens of one answer behind its first token. */
async function one(stepper: Stepper, adapter: PooledAdapter | null): Promise<void> {
  for await (const _ of stepper.steps({ prompt: [1, 2, 3], maxTokens: tokens, adapter }));
}

const rate = async (run: () => Promise<unknown>): Promise<number> => {
  const began = performance.now();
  await run();
  return (1000 * count * tokens) / (performance.now() - began);
};

const folder = mkdtempSync(join(tmpdir(), "mlxlm-bench-"));
try {
  const folders = Array.from({ length: count }, (_, i) => join(folder, String(i)));
  for (const [seed, at] of folders.entries()) await randomAdapter(at, await model(), { rank, seed, spread: 0.02 });
  const shared = await model();
  const pool = new AdapterPool(shared);
  const pooled = await Promise.all(folders.map((at) => pool.load(at)));
  const batch = new BatchStepper(shared, { adapters: pool });
  const alone: Stepper[] = [];
  for (const at of folders) {
    const own = await model();
    await applyAdapters(own, at);
    alone.push(new LoneStepper(own));
  }
  const side = () => Promise.all(pooled.map((adapter) => one(batch, adapter)));
  const plain = () => Promise.all(pooled.map(() => one(batch, null)));
  const inTurn = async () => {
    for (const stepper of alone) await one(stepper, null);
  };
  for (const run of [side, plain, inTurn]) await run();
  const rates: Record<string, number[]> = { together: [], none: [], turn: [] };
  for (let i = 0; i < Number(values.rounds); i++) {
    rates.together!.push(await rate(side));
    rates.none!.push(await rate(plain));
    rates.turn!.push(await rate(inTurn));
  }
  const [together, none, turn] = Object.values(rates).map(median) as [number, number, number];
  console.log(
    `${count} adapters of rank ${rank} in one batch: ${together.toFixed(1)} tok/s; one after the other ${turn.toFixed(1)} (${(together / turn).toFixed(2)}×); a batch without adapters ${none.toFixed(1)} (${(together / none).toFixed(2)}×)`,
  );
} finally {
  rmSync(folder, { recursive: true });
}
