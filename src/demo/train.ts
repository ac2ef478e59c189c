/**
 * Makes the demo model: tokenizer, training by mlxlm's own autodiff, 8-bit files. `bun run demo` runs it: two minutes on
 * an H200, some 13 hours on two CPU cores. Python with the `tokenizers` package is needed for the tokenizer alone.
 *
 *   bun src/demo/train.ts [--output DIR] [--keep-tokenizer] [--steps N]
 */
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { createModel, type LanguageModel } from "../models";
import { crossEntropy, quantize } from "../nn";
import { AdamW, clipGradNorm, cosineDecay, joinSchedules, linearSchedule } from "../optim";
import { loadTokenizer, type Tokenizer } from "../text/tokenizer";
import { documents } from "./corpus";
import { config, writeConfig } from "./shape";

/** The seed of the training text, and of the weights. */
const seed = 1;

/** How many documents the tokenizer is trained on. */
const tokenizerDocuments = 30_000;

async function trainTokenizer(folder: string): Promise<void> {
  const source = documents(seed + 1);
  const text = Array.from({ length: tokenizerDocuments }, () => source.next().value).join("");
  const python = Bun.spawn(
    [process.env.DEMO_PYTHON ?? "python3", join(import.meta.dir, "tokenizer.py"), join(folder, "tokenizer.json")],
    {
      stdin: new Blob([text]),
      stderr: "inherit",
    },
  );
  if ((await python.exited) !== 0)
    throw new Error("training the tokenizer failed: Python needs the tokenizers package");
}

/** Endless batches of token ids (batch, length + 1), cut from one stream of documents. */
async function* batches(
  tokenizer: Tokenizer,
  source: Iterator<string>,
  batch: number,
  length: number,
): AsyncGenerator<Int32Array, never, void> {
  let stream: number[] = [];
  for (;;) {
    const wanted = batch * length + 1;
    while (stream.length < wanted) {
      const texts = Array.from({ length: 64 }, () => source.next().value as string);
      for (const ids of await tokenizer.encodeBatch(texts, { addSpecialTokens: false })) stream.push(...ids);
    }
    const rows = new Int32Array(batch * (length + 1));
    for (let row = 0; row < batch; row++)
      rows.set(stream.slice(row * length, (row + 1) * length + 1), row * (length + 1));
    stream = stream.slice(batch * length);
    yield rows;
  }
}

/** One step: the loss, and the model's new parameters in place. */
function trainStep(model: LanguageModel, optimizer: AdamW, tokens: Tensor): Tensor {
  const loss = mx.scope(() => {
    const inputs = tokens.at(":", mx.slice(0, -1));
    const targets = tokens.at(":", mx.slice(1));
    const before = model.namedParameters();
    const paths = before.map(([path]) => path);
    const lossOf = (parameters: Tensor[]) => {
      model.update(paths.map((path, i) => [path, parameters[i]!]));
      const value = crossEntropy(model.forward(inputs), targets, { reduction: "mean" });
      model.update(before);
      return value;
    };
    const [value, gradients] = mx.valueAndGrad(lossOf)(before.map(([, tensor]) => tensor)) as [Tensor, Tensor[]];
    const [clipped] = clipGradNorm(new Map(paths.map((path, i) => [path, gradients[i]!])), 1);
    model.update(optimizer.update(before, clipped));
    return value;
  });
  mx.eval(loss, model.namedParameters(), optimizer.state);
  return loss;
}

/** Rows of a batch, and tokens of a row. */
const batch = 64;
const length = 256;

/** The highest learning rate; the schedule warms up to it and ends at a hundredth of it. */
const rate = 2e-3;

async function train(model: LanguageModel, tokenizer: Tokenizer, steps: number): Promise<void> {
  const warmup = Math.ceil(steps / 20);
  const cosine = cosineDecay(rate, steps - warmup, rate / 100);
  const schedule = joinSchedules([linearSchedule(0, rate, warmup), cosine], [warmup]);
  const optimizer = new AdamW(schedule, { betas: [0.9, 0.98], weightDecay: 0.05, biasCorrection: true });
  const began = performance.now();
  const report = 100;
  let recent = 0;
  const source = batches(tokenizer, documents(seed), batch, length);
  // The next batch is tokenized on other threads while the device works on this one.
  let upcoming = source.next();
  for (let step = 1; step <= steps; step++) {
    const rows = (await upcoming).value;
    upcoming = source.next();
    const tokens = mx.array(rows, "int32", [batch, length + 1]);
    const loss = trainStep(model, optimizer, tokens);
    recent += loss.item();
    loss.dispose();
    tokens.dispose();
    if (step % report === 0) {
      const seconds = (performance.now() - began) / 1000;
      const speed = ((step * batch * length) / seconds).toFixed(0);
      console.error(`step ${step}  loss ${(recent / report).toFixed(4)}  ${speed} tok/s  ${seconds.toFixed(0)} s`);
      recent = 0;
    }
  }
  await upcoming;
  optimizer.dispose();
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      output: { type: "string", default: join(import.meta.dir, "model") },
      "keep-tokenizer": { type: "boolean", default: false },
      steps: { type: "string", default: "5000" },
    },
  });
  const folder = values.output;
  mkdirSync(folder, { recursive: true });
  if (!values["keep-tokenizer"]) await trainTokenizer(folder);
  await writeConfig(folder);
  const tokenizer = await loadTokenizer(folder);

  // Buffers of a step are used again by the next one: keep them instead of asking the system anew.
  mx.setCacheLimit(4e9);
  mx.random.seed(seed);
  const model = await createModel(config, folder);
  mx.eval(model.parameters());
  const size = model.namedParameters().reduce((sum, [, tensor]) => sum + tensor.size, 0);
  console.error(`${(size / 1e6).toFixed(2)} M parameters`);

  await train(model, tokenizer, Number(values.steps));
  mx.scope(() => quantize(model, { groupSize: 64, bits: 8 }));
  mx.eval(model.parameters());
  mx.saveSafetensors(join(folder, "model.safetensors"), new Map(model.namedParameters()), { format: "mlx" });
}

await main();
