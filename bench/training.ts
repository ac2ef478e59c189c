/**
 * Training speed of one shape with random weights and random tokens: LoRA of rank 8 in every linear layer of the last
 * blocks, Adam, by the trainer's own clock, the first reports left out. Prints one JSON line. `compare.ts` runs
 * it in turn with mlx-lm's side, training.py; `lora.ts` runs the two over weights and kinds of batches.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { NumpyRandom } from "../src/mersenne";
import * as mx from "../src/mlx";
import { createModel } from "../src/models";
import { quantize } from "../src/nn";
import { AdamW } from "../src/optim";
import { iterateBatches, iteratePacked, type Sample } from "../src/tune/data";
import { linearToLora, unfreezeBlocks } from "../src/tune/linear-to-lora";
import { train } from "../src/tune/trainer";
import { joinedGroup } from "./group";
import shapes from "./shapes.json";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    type: { type: "string", default: "lora" },
    dtype: { type: "string", default: "bfloat16" },
    bits: { type: "string" },
    batch: { type: "string", default: "4" },
    length: { type: "string", default: "512" },
    layers: { type: "string", default: "16" },
    /** even: each as long as a row. mixed: of all lengths up to that. */
    samples: { type: "string", default: "even" },
    packed: { type: "boolean", default: false },
    iterations: { type: "string", default: "40" },
    checkpoint: { type: "boolean", default: false },
  },
});
const config = shapes[positionals[0] as keyof typeof shapes];
const [batch, length, iterations] = [Number(values.batch), Number(values.length), Number(values.iterations)];
const layers = Number(values.layers);

const group = joinedGroup();
mx.random.seed(0);
const model = await createModel(config, "bench/shapes.json");
mx.scope(() => model.update(model.namedParameters().map(([name, x]) => [name, x.astype(values.dtype as mx.Dtype)])));
if (values.bits) quantize(model, { groupSize: 64, bits: Number(values.bits) });
mx.eval(model.parameters());
model.freeze();
if (values.type === "full") unfreezeBlocks(model, layers);
else linearToLora(model, layers, { rank: 8, dropout: 0, scale: 20, dora: values.type === "dora" });
mx.clearCache();
mx.resetPeakMemory();

const count = 64 * batch;

function sampleOf(index: number): Sample {
  const size = values.samples === "even" ? length : Math.max(8, Math.ceil((length * (1 + ((index * 7919) % 97))) / 97));
  return { tokens: Int32Array.from({ length: size }, (_, t) => ((index + t) * 7919) % config.vocab_size), offset: 0 };
}

const samples = Array.from({ length: count }, (_, index) => sampleOf(index));
const dataset = { length: count, at: (index: number) => samples[index]!, where: (index: number) => `sample ${index}` };
/** In the data's order, as training.py takes them. */
const inOrder = { permutation: (length: number) => Array.from({ length }, (_, i) => i) } as unknown as NumpyRandom;
const options = { batchSize: batch, maxSeqLength: length, loop: true };
const batches = values.packed
  ? iteratePacked(dataset, { ...options, random: new NumpyRandom(0) })
  : iterateBatches(dataset, { ...options, random: inOrder });

const folder = mkdtempSync(join(tmpdir(), "mlxlm-bench-"));
const speeds: number[] = [];
const losses: number[] = [];
try {
  await train(model, new AdamW(1e-5, { weightDecay: 0 }), {
    folder,
    iterations,
    batches,
    stepsPerReport: iterations / 4,
    stepsPerEval: iterations + 1,
    stepsPerSave: iterations + 1,
    gradientCheckpoint: values.checkpoint,
    group,
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
