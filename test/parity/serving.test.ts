/** Each architecture as it is served and trained: in batches, from saved caches, with gradients. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { UserError } from "../../src/errors";
import { batchGenerate } from "../../src/generate/batch";
import type { Drafter } from "../../src/generate/draft/drafter";
import { loadPromptCache, savePromptCache } from "../../src/generate/prompt-cache-file";
import { draftedSteps, speculativeSteps } from "../../src/generate/speculative";
import { generateSteps } from "../../src/generate/step";
import * as mx from "../../src/mlx";
import type { Cache, LanguageModel } from "../../src/models";
import { linearToLora, trainableParameters } from "../../src/tune/linear-to-lora";
import { decode, row } from "./decode";
import { fixture } from "./fixtures";
import { type FormulaModel, formulaModel } from "./formula-model";
import { weight } from "./weights";

type Fixture = FormulaModel & { prompt: number[]; float32: { greedy: number[] } };

const folder = mkdtempSync(join(tmpdir(), "mlxlm-serving-"));
afterAll(() => rmSync(folder, { recursive: true }));

const dispose = (cache: readonly Cache[]) => {
  for (const layer of cache) layer.dispose();
};

/** Greedy tokens that follow what the cache holds, of which `last` is the newest token that was not read. */
function goOn(model: LanguageModel, cache: Cache[], last: number, count: number): number[] {
  const tokens: number[] = [];
  for (let token = last; tokens.length < count; tokens.push(token)) {
    token = mx.scope(() => mx.argmax(model.forward(row([token]), { cache }).at(0, -1)).item());
  }
  return tokens;
}

/** Whether its caches can forget their newest tokens, also after so many. */
function takesBack(model: LanguageModel, more = 0): boolean {
  const cache = model.makeCache();
  const can = cache.every((layer) => layer.isTrimmable(more));
  dispose(cache);
  return can;
}

/** Drafts of which a given number is right, by turns; the rest is the token behind the right one. */
function halfRight(promptLength: number, answer: readonly number[]): Drafter {
  const turns = [1, 0, 2, 3, 2, 2, 0, 1, 2, 3];
  let turn = 0;
  return {
    name: "a test",
    flag: "--test",
    propose(history, count) {
      const right = turns[turn++ % turns.length]!;
      const next = answer.slice(history.length - promptLength).slice(0, count);
      return next.map((token, i) => (i < right ? token : token ^ 1));
    },
    settle() {},
    dispose() {},
  };
}

/** Cross-entropy of a row of tokens. */
function loss(model: LanguageModel, tokens: readonly number[]): mx.Tensor {
  const logits = model.forward(row(tokens.slice(0, -1))).squeeze(0);
  const targets = mx.array(tokens.slice(1), "uint32").expandDims(-1);
  return logits.logsumexp({ axis: -1 }).subtract(logits.takeAlongAxis(targets, -1).squeeze(-1)).mean();
}

/** Projections of indexers, which choose what attention sees: no gradient flows through a choice. */
const choosesTokens = /\.index(er\.|_[qk]_proj\.)/;

for (const file of readdirSync(new URL("../fixtures/models/", import.meta.url)).sort()) {
  const expected = fixture<Fixture>(`models/${file}`);
  const { prompt, float32 } = expected;
  const count = 20;

  describe(file.replace(".json", ""), () => {
    test("a batch of two, one padded on the left, gives each what it gives alone", async () => {
      const model = await formulaModel(expected);
      const short = prompt.slice(3);
      const { tokens } = await batchGenerate(model, [prompt, short], { maxTokens: count });
      expect(tokens).toEqual([float32.greedy.slice(0, count), decode(model, short, count)]);
      model.dispose();
    });

    test("a cache goes on from its file, and leaves no tensor behind", async () => {
      const model = await formulaModel(expected);
      const before = mx.liveHandles();
      const cache = model.makeCache();
      mx.scope(() => void model.forward(row(prompt.slice(0, -1)), { cache }));
      const path = join(folder, `${file}.safetensors`);
      await savePromptCache(path, cache, {});
      dispose(cache);
      const loaded = await loadPromptCache(path);
      expect(goOn(model, loaded.cache, prompt.at(-1)!, count)).toEqual(float32.greedy.slice(0, count));
      dispose(loaded.cache);
      expect(mx.liveHandles()).toBe(before);
      model.dispose();
    });

    test("a prompt in pieces, longer than a sliding window, goes on with the same text", async () => {
      const model = await formulaModel(expected);
      const before = mx.liveHandles();
      const long = [...prompt, ...float32.greedy.slice(0, 24)];
      for (const prefillStepSize of [5, 2048]) {
        const tokens: number[] = [];
        for await (const { token } of generateSteps(model, long, { maxTokens: count, prefillStepSize }))
          tokens.push(token);
        expect(tokens).toEqual(float32.greedy.slice(24, 24 + count));
      }
      expect(mx.liveHandles()).toBe(before);
      model.dispose();
    });

    test("with itself as its draft the text is the same", async () => {
      const model = await formulaModel(expected);
      const before = mx.liveHandles();
      const tokens: number[] = [];
      let drafted = 0;
      const run = async () => {
        for await (const { token, fromDraft } of speculativeSteps(model, model, prompt, { maxTokens: count })) {
          tokens.push(token);
          drafted += Number(fromDraft);
        }
      };
      if (takesBack(model)) {
        await run();
        expect(tokens).toEqual(float32.greedy.slice(0, count));
        // Behind a full window it goes on without drafts.
        expect(drafted > 0).toBe(takesBack(model, prompt.length));
      } else {
        expect(await run().catch((thrown) => thrown)).toBeInstanceOf(UserError);
      }
      expect(mx.liveHandles()).toBe(before);
      model.dispose();
    });

    test("with drafts that are right and wrong by turns the text is the same, whatever the caches can forget", async () => {
      const model = await formulaModel(expected);
      const before = mx.liveHandles();
      const right = float32.greedy;
      const tokens: number[] = [];
      const counts = { proposed: 0, accepted: 0 };
      const options = {
        maxTokens: 24,
        numDraftTokens: 3,
        onDrafts(proposed: number, accepted: number) {
          counts.proposed += proposed;
          counts.accepted += accepted;
        },
      };
      for await (const { token } of draftedSteps(model, halfRight(prompt.length, right), prompt, options))
        tokens.push(token);
      expect(tokens).toEqual(right.slice(0, 24));
      expect(counts.accepted).toBeGreaterThan(8);
      expect(counts.proposed - counts.accepted).toBeGreaterThan(8);
      expect(mx.liveHandles()).toBe(before);
      model.dispose();
    });

    test("gradients of adapters are the slopes of the loss", async () => {
      const model = await formulaModel(expected);
      model.freeze();
      linearToLora(model, -1, { rank: 4, scale: 4, dropout: 0, dora: false });
      const named = trainableParameters(model);
      const tokens = [...prompt, ...float32.greedy.slice(0, 12)];
      const lossAt = (parameters: readonly mx.Tensor[]) => {
        model.update(parameters.map((tensor, i) => [named[i]![0], tensor]));
        return loss(model, tokens);
      };
      mx.scope(() => {
        const at = named.map(([name, { shape }]) => mx.array(weight(name, shape, 1), "float32", shape).multiply(0.2));
        const [, gradients] = mx.valueAndGrad((parameters: mx.Tensor[]) => lossAt(parameters))(at) as [
          unknown,
          mx.Tensor[],
        ];
        const still = named.filter((_, i) => gradients[i]!.abs().max().item() === 0).map(([name]) => name);
        expect(still).toEqual(named.map(([name]) => name).filter((name) => choosesTokens.test(name)));
        // Along the gradient the slope is its length.
        const length = Math.sqrt(gradients.reduce((sum, gradient) => sum + gradient.square().sum().item(), 0));
        const moved = (step: number) => at.map((x, i) => x.add(gradients[i]!.multiply(step / length)));
        const slope = (step: number) => (lossAt(moved(step)).item() - lossAt(moved(-step)).item()) / (2 * step);
        // By one of two steps: where the loss is steep it is bent too, and within a step it jumps where a choice changes.
        const off = [3e-4, 3e-3 / length].map((step) => Math.abs(slope(step) - length));
        expect(Math.min(...off)).toBeLessThan(2e-2 * length);
        lossAt(at);
      });
      model.dispose();
    });
  });
}
