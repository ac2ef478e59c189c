/**
 * Training speed of one shape with random weights and random tokens: LoRA of rank 8 in every linear layer of the last 16
 * blocks, Adam, by the trainer's own clock, the first reports left out. Prints one JSON line. `compare.ts` runs
 * it in turn with mlx-lm's side, training.py.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import * as mx from "../src/mlx";
import { createModel } from "../src/models";
import { quantize } from "../src/nn";
import { AdamW } from "../src/optim";
import { linearToLora, unfreezeBlocks } from "../src/tune/linear-to-lora";
import type { TokenBatch } from "../src/tune/loss";
import { train } from "../src/tune/trainer";
import shapes from "./shapes.json";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    type: { type: "string", default: "lora" },
    dtype: { type: "string", default: "bfloat16" },
    bits: { type: "string" },
    batch: { type: "string", default: "4" },
    length: { type: "string", default: "512" },
    iterations: { type: "string", default: "40" },
    checkpoint: { type: "boolean", default: false },
  },
});
const config = shapes[positionals[0] as keyof typeof shapes];
const [batch, length, iterations] = [Number(values.batch), Number(values.length), Number(values.iterations)];

mx.random.seed(0);
const model = await createModel(config, "bench/shapes.json");
mx.scope(() => model.update(model.namedParameters().map(([name, x]) => [name, x.astype(values.dtype as mx.Dtype)])));
if (values.bits) quantize(model, { groupSize: 64, bits: Number(values.bits) });
mx.eval(model.parameters());
model.freeze();
if (values.type === "full") unfreezeBlocks(model, 16);
else linearToLora(model, 16, { rank: 8, dropout: 0, scale: 20, dora: values.type === "dora" });
mx.clearCache();
mx.resetPeakMemory();

function* batches(): Generator<TokenBatch> {
  for (let n = 0; ; n++) {
    const tokens = Int32Array.from({ length: batch * length }, (_, i) => ((i + n) * 7919) % config.vocab_size);
    const lengths = Int32Array.from({ length: batch * 2 }, (_, i) => (i % 2 === 0 ? 0 : length));
    yield { tokens, shape: [batch, length], lengths };
  }
}

const folder = mkdtempSync(join(tmpdir(), "mlxlm-bench-"));
const speeds: number[] = [];
const losses: number[] = [];
try {
  await train(model, new AdamW(1e-5, { weightDecay: 0 }), {
    folder,
    iterations,
    batches: batches(),
    stepsPerReport: iterations / 4,
    stepsPerEval: iterations + 1,
    stepsPerSave: iterations + 1,
    gradientCheckpoint: values.checkpoint,
    onEvent(event) {
      if (event.type !== "train") return;
      speeds.push(event.tokens_per_second);
      losses.push(event.loss);
    },
  });
} finally {
  rmSync(folder, { recursive: true, force: true });
}
console.log(
  JSON.stringify({
    tokens_per_second: speeds.slice(1).reduce((sum, speed) => sum + speed, 0) / (speeds.length - 1),
    peak_memory: mx.peakMemory() / 1e9,
    loss: losses.at(-1),
  }),
);
