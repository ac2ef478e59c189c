/**
 * Decode speed of one shape with random weights, greedy, by mlx-lm's clock: the prompt ends with the first token.
 * Prints one JSON line. `compare.ts` runs it in turn with mlx-lm's side, decode.py.
 */
import { parseArgs } from "node:util";
import { generateSteps } from "../src/generate/step";
import * as mx from "../src/mlx";
import { createModel } from "../src/models";
import { fuseProjections, holdTransposes, quantize } from "../src/nn";
import shapes from "./shapes.json";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    dtype: { type: "string", default: "bfloat16" },
    bits: { type: "string" },
    prompt: { type: "string", default: "128" },
    tokens: { type: "string", default: "256" },
  },
});
const config = shapes[positionals[0] as keyof typeof shapes];
const promptLength = Number(values.prompt);
const maxTokens = Number(values.tokens);

mx.random.seed(0);
const model = await createModel(config, "bench/shapes.json");
mx.scope(() => model.update(model.namedParameters().map(([name, x]) => [name, x.astype(values.dtype as mx.Dtype)])));
if (values.bits) quantize(model, { groupSize: 64, bits: Number(values.bits) });
mx.eval(model.parameters());
fuseProjections(model);
holdTransposes(model);
mx.preferHugePages(model.parameters());
mx.clearCache();
mx.resetPeakMemory();

async function run(): Promise<[promptTime: number, decodeTime: number]> {
  const prompt = Array.from({ length: promptLength }, (_, i) => (i * 7919) % config.vocab_size);
  let began = performance.now();
  let promptTime = 0;
  for await (const step of generateSteps(model, prompt, { maxTokens })) {
    step.logprobs?.dispose();
    if (promptTime === 0) {
      promptTime = performance.now() - began;
      began = performance.now();
    }
  }
  return [promptTime / 1000, (performance.now() - began) / 1000];
}

await run();
const [promptTime, decodeTime] = await run();
console.log(
  JSON.stringify({
    prompt_tps: promptLength / promptTime,
    generation_tps: maxTokens / decodeTime,
    peak_memory: mx.peakMemory() / 1e9,
  }),
);
