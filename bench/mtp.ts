/**
 * Draft layers that are worth something: the demo model gets one, of MiMo's kind, which learns the demo's text while the
 * model stays as it is; then answers with and without drafts are compared. Prints one JSON line for each number of drafts.
 *
 *   bun bench/mtp.ts --work DIR [--steps 260] [--rounds 7] [--only train|measure]
 */
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { convertModel } from "../src/convert/convert";
import { loadModel } from "../src/convert/load";
import { documents } from "../src/demo/corpus";
import { demoFolder } from "../src/demo/folder";
import { answer, type End } from "../src/generate/answer";
import { DraftStepper, type Drafts } from "../src/generate/draft-stepper";
import { LoneStepper } from "../src/generate/lone-stepper";
import type { Stepper } from "../src/generate/stepper";
import type { Tensor } from "../src/mlx";
import * as mx from "../src/mlx";
import { architecture, createModel, type DraftHead, type LanguageModel } from "../src/models";
import type { Trunk } from "../src/models/mtp/draft-head";
import { crossEntropy } from "../src/nn";
import { AdamW, cosineDecay, joinSchedules, linearSchedule } from "../src/optim";
import { loadTokenizer } from "../src/text/tokenizer";
import { median } from "./median";

const { values } = parseArgs({
  options: {
    work: { type: "string" },
    steps: { type: "string", default: "260" },
    rounds: { type: "string", default: "7" },
    only: { type: "string" },
  },
});
if (!values.work) throw new Error("--work names a folder for the model");
const [plain, trained, packed] = ["plain", "trained", "packed"].map((name) => join(values.work!, name)) as [
  string,
  string,
  string,
];
const steps = Number(values.steps);
const [rows, length, peak, warmup] = [8, 128, 2e-3, 40] as const;

/** The demo model unpacked, as a MiMo: its projections have biases, which are zero here. */
async function makeModel(): Promise<{ config: Record<string, unknown>; model: LanguageModel & Trunk }> {
  rmSync(plain, { recursive: true, force: true });
  await convertModel({ path: demoFolder() }, plain, { dequantize: true, dtype: "float32" });
  const config = { ...JSON.parse(readFileSync(join(plain, "config.json"), "utf8")), model_type: "mimo" };
  const model = (await createModel(config, plain)) as LanguageModel & Trunk;
  mx.scope(() => {
    const weights = new Map(mx.loadSafetensors(join(plain, "model.safetensors")).arrays);
    for (const [name, bias] of model.namedParameters())
      if (name.endsWith(".bias")) weights.set(name, mx.zerosLike(bias));
    model.loadWeights(weights);
  });
  mx.eval(model.parameters());
  return { config, model };
}

/** Rows of the demo's training text, (rows, length) each. */
async function* batches(): AsyncGenerator<number[][], never, void> {
  const tokenizer = await loadTokenizer(demoFolder());
  const source = documents(101);
  let tokens: number[] = [];
  for (;;) {
    while (tokens.length < rows * length) {
      const texts = Array.from({ length: 64 }, () => source.next().value);
      tokens = tokens.concat(...(await tokenizer.encodeBatch(texts, { addSpecialTokens: false })));
    }
    yield Array.from({ length: rows }, (_, row) => tokens.slice(row * length, (row + 1) * length));
    tokens = tokens.slice(rows * length);
  }
}

/** How likely the token behind the next is, by the draft layer. The model's part has no gradient. */
function lossOf(head: DraftHead, tokens: Tensor): (parameters: Tensor[]) => Tensor {
  const names = head.namedParameters().map(([name]) => name);
  const all = mx.slice();
  const { states } = head.read(tokens.at(all, mx.slice(0, -2)));
  const [next, targets] = [tokens.at(all, mx.slice(1, -1)), tokens.at(all, mx.slice(2))];
  return (parameters) => {
    const before = head.namedParameters();
    head.update(names.map((name, i) => [name, parameters[i]!]));
    try {
      return crossEntropy(head.scores(head.step(0, states, next).normed), targets).mean();
    } finally {
      head.update(before);
    }
  };
}

/** The draft layer begins as the model's last layer, which reads hidden states alone: it learns sooner so. */
function beginAsLastLayer(head: DraftHead, model: LanguageModel): void {
  const from = `model.layers.${model.layers.length - 1}.`;
  mx.scope(() => {
    const block = model.namedParameters().filter(([name]) => name.startsWith(from));
    head.update(block.map(([name, x]) => [`layers.0.${name.slice(from.length)}`, mx.copy(x)]));
    const projection = "layers.0.input_proj.weight";
    const [, weight] = head.namedParameters().find(([name]) => name === projection)!;
    const dims = weight.dim(0);
    head.update([[projection, mx.concatenate([mx.eye(dims), mx.zeros([dims, dims])], { axis: 1 })]]);
  });
  mx.eval(head.parameters());
}

async function train(): Promise<void> {
  const { config, model } = await makeModel();
  const { Args, mtp } = await architecture("mimo");
  mx.random.seed(1);
  const head = mx.scope(() => mtp!.head(model, Args.parse(config), 1));
  beginAsLastLayer(head, model);
  const rate = joinSchedules([linearSchedule(0, peak, warmup), cosineDecay(peak, steps - warmup, peak / 50)], [warmup]);
  const optimizer = new AdamW(rate, { betas: [0.9, 0.98], weightDecay: 0.02, biasCorrection: true });
  const source = batches();
  const began = performance.now();
  let recent: number[] = [];
  for (let step = 1; step <= steps; step++) {
    const batch = (await source.next()).value;
    const loss = mx.scope(() => {
      const tokens = mx.array(batch.flat(), "uint32", [rows, length]);
      const named = head.namedParameters();
      const [loss, gradients] = mx.valueAndGrad(lossOf(head, tokens))(named.map(([, x]) => x)) as [Tensor, Tensor[]];
      const changed = optimizer.update(named, new Map(named.map(([name], i) => [name, gradients[i]!])));
      head.update(changed);
      return loss;
    });
    mx.eval(loss, head.parameters(), optimizer.state);
    recent.push(loss.item());
    loss.dispose();
    if (step % 25 !== 0) continue;
    const mean = recent.reduce((sum, value) => sum + value, 0) / recent.length;
    console.error(`step ${step}: loss ${mean.toFixed(3)}, ${((performance.now() - began) / 1000).toFixed(0)} s`);
    recent = [];
    mx.clearCache();
  }
  rmSync(trained, { recursive: true, force: true });
  mkdirSync(trained, { recursive: true });
  for (const name of ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]) {
    cpSync(join(demoFolder(), name), join(trained, name));
  }
  writeFileSync(join(trained, "config.json"), JSON.stringify({ ...config, num_nextn_predict_layers: 1 }, null, 2));
  const own = head.namedParameters().map(([name, x]) => [`model.mtp_${name}`, x] as const);
  mx.saveSafetensors(join(trained, "model.safetensors"), new Map([...model.namedParameters(), ...own]));
  rmSync(packed, { recursive: true, force: true });
  await convertModel({ path: trained }, packed, { quantize: { bits: 8 }, keepMtp: true });
}

const questions = [
  "Tell me a story.",
  "Tell me a story about a fox.",
  "Write a short story about an owl.",
  "A story about a rabbit, please.",
  "What is 27 + 58?",
  "What is mlxlm?",
  "Once upon a time",
  "Write a story about a bear.",
];

async function measure(folder: string): Promise<void> {
  const { model, draftHead, tokenizer } = await loadModel(folder, { draftHead: true });
  const ends = async (stepper: Stepper, sampler = {}) => {
    const all: End[] = [];
    mx.random.seed(5);
    for (const content of questions) {
      const request = { prompt: { messages: [{ role: "user" as const, content }] }, maxTokens: 200, sampler };
      for await (const part of answer(request, { stepper, tokenizer })) if (part.type === "end") all.push(part);
    }
    return all;
  };
  const kinds: [string, Drafts | null][] = [
    ["none", null],
    ...[1, 2, 3, 4].map((tokens): [string, Drafts] => [`mtp ${tokens}`, { head: draftHead!, tokens }]),
    ["ngram", { from: "ngram", tokens: 8 }],
  ];
  const steppers = kinds.map(([, drafts]) => (drafts ? new DraftStepper(model, drafts) : new LoneStepper(model)));
  const speeds: number[][] = kinds.map(() => []);
  const last: End[][] = [];
  // In turn, so that a busy machine is busy for all.
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const [i, stepper] of steppers.entries()) {
      last[i] = await ends(stepper);
      speeds[i]!.push(total(last[i]!, "generation_tokens") / seconds(last[i]!));
    }
  }
  for (const [i, [name]] of kinds.entries()) {
    const sum = (field: "proposed" | "accepted" | "passes") =>
      last[i]!.reduce((all, { drafts }) => all + (drafts?.[field] ?? 0), 0);
    const tokens = total(last[i]!, "generation_tokens");
    const passes = sum("passes") || tokens;
    const sampled = kinds[i]![1] ? await ends(steppers[i]!, { temp: 0.7 }) : [];
    const ofSampled = (field: "proposed" | "accepted") =>
      sampled.reduce((all, { drafts }) => all + (drafts?.[field] ?? 0), 0);
    const line = {
      model: folder.split("/").at(-1),
      drafts: name,
      tokens,
      passes,
      tokens_per_pass: round(tokens / passes),
      acceptance: round(sum("accepted") / Math.max(sum("proposed"), 1)),
      acceptance_at_temp_0_7: round(ofSampled("accepted") / Math.max(ofSampled("proposed"), 1)),
      tokens_per_sec: round(median(speeds[i]!)),
      against_none: round(median(speeds[i]!.map((speed, n) => speed / speeds[0]![n]!))),
      same_text: last[i]!.every(({ generated }, n) => generated.join() === last[0]![n]!.generated.join()),
    };
    console.log(JSON.stringify(line));
  }
  draftHead!.dispose();
  model.dispose();
}

const total = (ends: readonly End[], field: "generation_tokens") => ends.reduce((sum, end) => sum + end[field], 0);

const seconds = (ends: readonly End[]) =>
  ends.reduce((sum, { generation_tokens, generation_tps }) => sum + generation_tokens / generation_tps, 0);

const round = (value: number) => Math.round(value * 1000) / 1000;

if (values.only !== "measure") await train();
if (values.only !== "train") for (const folder of [trained, packed]) await measure(folder);
