/** Draft layers of tiny models with weights by formula, under the names of published checkpoints: the reference's drafts. */
import { describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import type { Drafter } from "../../src/generate/draft/drafter";
import { HeadDrafter } from "../../src/generate/draft/head-drafter";
import { DraftStepper } from "../../src/generate/draft-stepper";
import { draftedSteps } from "../../src/generate/speculative";
import { generateSteps } from "../../src/generate/step";
import type { Tensor } from "../../src/mlx";
import * as mx from "../../src/mlx";
import { type DraftHead, type LanguageModel, makeDraftHead } from "../../src/models";
import { architecture, modelTypesWith } from "../../src/models/registry";
import { row } from "./decode";
import { expectValues, fixture, float32 } from "./fixtures";
import { type FormulaModel, formulaModel, formulaTensors } from "./formula-model";

interface Fixture extends FormulaModel {
  prompt: number[];
  /** What the model puts behind it. */
  token: number;
  columns: number;
  depth: number;
  /** The first and the second draft behind that, and the logits that they come from, of all positions that are read. */
  drafts: [number, number];
  steps: { logits: string; last: string }[];
}

const folder = new URL("../fixtures/mtp/", import.meta.url);
const names = readdirSync(folder).map((file) => file.replace(".json", ""));

async function formulaHead(of: Fixture, model: LanguageModel): Promise<DraftHead> {
  const { Args, mtp } = await architecture(of.config.model_type);
  return mx.scope(() => {
    const { head, weights } = makeDraftHead(mtp!, Args.parse(of.config), model, formulaTensors(of))!;
    head.loadWeights(weights);
    mx.eval(head.parameters());
    return head;
  });
}

test("there is a fixture for each architecture that has draft layers, but for those that are others by name only", async () => {
  const byName = ["joyai_llm_flash", "kimi_k2", "kimi_k25", "step3p7"];
  const types = new Set(names.map((name) => fixture<Fixture>(`mtp/${name}.json`).config.model_type));
  expect((await modelTypesWith("mtp")).filter((type) => !byName.includes(type))).toEqual([...types].sort());
});

test("a checkpoint that also sees drafts as that of its language model alone", async () => {
  const of = fixture<Fixture>("mtp/step3p5.json");
  const { model_type: _, ...text } = of.config;
  const { Args, Model, mtp } = await architecture("step3p7");
  const args = Args.parse({ text_config: { moe_router_scaling_factor: 3, ...text } });
  const model = new Model(args) as LanguageModel;
  const head = mx.scope(() => {
    const tensors = [...formulaTensors(of)].map(
      ([name, x]) => [name.replace(/^model\./, "model.language_model."), x] as const,
    );
    model.loadWeights([...model.sanitize(new Map(tensors))], { strict: true });
    const { head, weights } = makeDraftHead(mtp!, args, model, new Map(tensors))!;
    head.loadWeights(weights);
    mx.eval(model.parameters(), head.parameters());
    return head;
  });
  expect(head.depth).toBe(of.depth);
  const drafter = new HeadDrafter(head, [...of.prompt, of.token], { cached: 0, tokens: 2 });
  const cache = model.makeCache();
  mx.scope(() => void drafter.reader.forward(row(of.prompt), { cache }));
  drafter.onChunk();
  expect(drafter.propose([...of.prompt, of.token], 2)).toEqual(of.drafts);
  for (const part of [drafter, ...cache, model, head]) part.dispose();
});

describe.each(names)("%s", (name) => {
  const expected = fixture<Fixture>(`mtp/${name}.json`);
  const { prompt, token, columns, drafts, depth } = expected;
  const thinned = (logits: Tensor) => logits.at(mx.ellipsis, mx.slice(undefined, undefined, columns)).toArray();

  test("logits of all positions", async () => {
    const model = await formulaModel(expected);
    const head = await formulaHead(expected, model);
    expect(head.depth).toBe(depth);
    mx.scope(() => {
      const { logits, states } = head.read(row(prompt));
      expect(mx.argmax(logits.at(0, -1)).item()).toBe(token);
      const { normed, states: given } = head.step(0, states, row([...prompt.slice(1), token]));
      expectValues(thinned(head.scores(normed)), float32(expected.steps[0]!.logits), { tolerance: 1e-4 });
      expectValues(head.scores(normed).at(0, -1).toArray(), float32(expected.steps[0]!.last), { tolerance: 1e-4 });
      const second =
        depth === 1
          ? head.step(
              0,
              mx.concatenate([states, given.at(":", mx.slice(-1))], { axis: 1 }),
              row([...prompt.slice(1), token, drafts[0]]),
            )
          : head.step(1, head.chains ? given : states, row([...prompt.slice(2), token, drafts[0]]));
      // Behind the model and two draft layers rounding adds up.
      const further = head.scores(second.normed, depth === 1 ? 0 : 1);
      expectValues(thinned(further), float32(expected.steps[1]!.logits), { tolerance: 5e-4 });
    });
    for (const part of [model, head]) part.dispose();
  });

  test("drafts, however the prompt is read", async () => {
    const model = await formulaModel(expected);
    const head = await formulaHead(expected, model);
    const known = [...prompt, token];
    for (const pieces of [[8], [3, 5], [1, 1, 6]]) {
      const before = mx.liveHandles();
      const drafter = new HeadDrafter(head, known, { cached: 0, tokens: 2 });
      const cache = model.makeCache();
      let done = 0;
      for (const count of pieces) {
        mx.scope(() => void drafter.reader.forward(row(prompt.slice(done, done + count)), { cache }));
        drafter.onChunk();
        done += count;
      }
      expect(drafter.propose(known, 2)).toEqual(drafts);
      // What was guessed is forgotten again.
      expect(drafter.propose(known, 2)).toEqual([]);
      drafter.dispose();
      for (const layer of cache) layer.dispose();
      expect(mx.liveHandles()).toBe(before);
    }
    for (const part of [model, head]) part.dispose();
  });

  test("what is drafted does not depend on how many drafts were right before", async () => {
    const model = await formulaModel(expected);
    const head = await formulaHead(expected, model);
    const before = mx.liveHandles();
    const answer: number[] = [];
    for await (const { token } of generateSteps(model, prompt, { maxTokens: 30 })) answer.push(token);
    const inner = new HeadDrafter(head, prompt, { cached: 0, tokens: 2 });
    const made: [history: number[], drafts: readonly number[]][] = [];
    const turns = [2, 0, 1, 2, 2, 1, 0, 2];
    /** Drafts as it does, but has so many right ones checked. */
    const drafter: Drafter = {
      name: inner.name,
      flag: inner.flag,
      reader: inner.reader,
      propose(history, count) {
        made.push([[...history], inner.propose(history, count)]);
        const right = turns[made.length % turns.length]!;
        const next = answer.slice(history.length - prompt.length);
        return Array.from({ length: count }, (_, i) => (i < right ? next[i]! : next[i]! + 1));
      },
      settle: (history, checked) => inner.settle(history, checked),
      dispose: () => inner.dispose(),
    };
    const tokens: number[] = [];
    for await (const { token } of draftedSteps(model, drafter, prompt, { maxTokens: 20, numDraftTokens: 2 })) {
      tokens.push(token);
    }
    expect(tokens).toEqual(answer.slice(0, 20));
    for (const [history, drafts] of made) {
      const fresh = new HeadDrafter(head, history, { cached: 0, tokens: 2 });
      const cache = model.makeCache();
      mx.scope(() => void fresh.reader.forward(row(history.slice(0, -1)), { cache }));
      expect(fresh.propose(history, drafts.length)).toEqual(drafts);
      fresh.dispose();
      for (const layer of cache) layer.dispose();
    }
    expect(mx.liveHandles()).toBe(before);
    for (const part of [model, head]) part.dispose();
  });

  test("the text is the model's own", async () => {
    const model = await formulaModel(expected);
    const head = await formulaHead(expected, model);
    const plain: number[] = [];
    for await (const { token } of generateSteps(model, prompt, { maxTokens: 24 })) plain.push(token);
    for (const tokens of [1, 2]) {
      const before = mx.liveHandles();
      const drafted: number[] = [];
      const steps = new DraftStepper(model, { head, tokens }).steps({ prompt, maxTokens: 24 });
      for await (const { token } of steps) drafted.push(token);
      expect(drafted).toEqual(plain);
      expect(mx.liveHandles()).toBe(before);
    }
    for (const part of [model, head]) part.dispose();
  });

  test("names of its own stay as they are", async () => {
    const model = await formulaModel(expected);
    const head = await formulaHead(expected, model);
    const { Args, mtp } = await architecture(expected.config.model_type);
    const own = new Map(head.namedParameters().map(([name, weight]) => [`mtp.${name}`, weight]));
    mx.scope(() => {
      const again = mtp!.sanitize(own, Args.parse(expected.config));
      expect([...again]).toEqual([...own].map(([name, weight]) => [name.slice(4), weight]));
    });
    for (const part of [model, head]) part.dispose();
  });
});
