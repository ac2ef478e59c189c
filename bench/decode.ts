/**
 * Decode speed of one shape with random weights, greedy, by mlx-lm's clock: the prompt ends with the first token. On ranks
 * (`ranks.ts`) the model is divided among them. With
 * --batch, of so many sequences together. Prints one JSON line. `compare.ts` runs it in turn with mlx-lm's side,
 * decode.py; on the CPU, llama-cpp.py is the other.
 */
import { parseArgs } from "node:util";
import { makeReady } from "../src/convert/ready";
import { batchGenerate } from "../src/generate/batch";
import { generateSteps } from "../src/generate/step";
import * as mx from "../src/mlx";
import { architecture, createModel } from "../src/models";
import { quantize, shardModel } from "../src/nn";
import { joinedGroup } from "./group";
import shapes from "./shapes.json";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    dtype: { type: "string", default: "bfloat16" },
    bits: { type: "string" },
    prompt: { type: "string", default: "128" },
    tokens: { type: "string", default: "256" },
    batch: { type: "string", default: "1" },
    "prefill-step-size": { type: "string" },
  },
});
const config = shapes[positionals[0] as keyof typeof shapes];
const promptLength = Number(values.prompt);
const maxTokens = Number(values.tokens);
const batch = Number(values.batch);
const stepSize = values["prefill-step-size"];
const prefillStepSize = stepSize ? Number(stepSize) : undefined;

const group = joinedGroup();
mx.random.seed(0);
const model = await createModel(config, "bench/shapes.json");
mx.scope(() => model.update(model.namedParameters().map(([name, x]) => [name, x.astype(values.dtype as mx.Dtype)])));
if (values.bits) quantize(model, { groupSize: 64, bits: Number(values.bits) });
if (group) shardModel(model, group);
makeReady(model, await architecture(config.model_type));
mx.resetPeakMemory();

const promptOf = (row: number) => Array.from({ length: promptLength }, (_, i) => (i * 7919 + row) % config.vocab_size);

interface Speed {
  prompt_tps: number;
  generation_tps: number;
  /** Of the CPU's time: on a crowded machine the steadier figure. */
  prompt_per_cpu_s?: number;
  generation_per_cpu_s?: number;
}

/** Seconds that this process has had of all cores. */
function cpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

async function runOne(): Promise<Speed> {
  let began = performance.now();
  let cpuBegan = cpuSeconds();
  let promptTime = 0;
  let promptCpu = 0;
  for await (const step of generateSteps(model, promptOf(0), { maxTokens, prefillStepSize })) {
    step.logprobs?.dispose();
    if (promptTime === 0) {
      promptTime = performance.now() - began;
      began = performance.now();
      promptCpu = cpuSeconds() - cpuBegan;
      cpuBegan = cpuSeconds();
    }
  }
  const decodeTime = performance.now() - began;
  return {
    prompt_tps: (promptLength / promptTime) * 1000,
    generation_tps: (maxTokens / decodeTime) * 1000,
    prompt_per_cpu_s: promptLength / promptCpu,
    generation_per_cpu_s: maxTokens / (cpuSeconds() - cpuBegan),
  };
}

const run = (): Promise<Speed> =>
  batch === 1
    ? runOne()
    : batchGenerate(
        model,
        Array.from({ length: batch }, (_, row) => promptOf(row)),
        { maxTokens, prefillStepSize },
      );

await run();
const { prompt_tps, generation_tps, prompt_per_cpu_s, generation_per_cpu_s } = await run();
const figures = { prompt_tps, generation_tps, prompt_per_cpu_s, generation_per_cpu_s };
console.log(JSON.stringify({ ...figures, peak_memory: mx.peakMemory() / 1e9 }));
