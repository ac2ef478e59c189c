/** One rank of caches.test.ts: tokens of tiny models whose layers are spread, with drafts of which every third is wrong. */
import type { Drafter } from "../../src/generate/draft/drafter";
import { forgetAlike } from "../../src/generate/ranks/alike";
import { draftedSteps } from "../../src/generate/speculative";
import * as mx from "../../src/mlx";
import { pipelineModel } from "../../src/models";
import { fixture } from "../parity/fixtures";
import { type FormulaModel, formulaModel } from "../parity/formula-model";
import { report, resultsOf } from "./rank-end";

export interface Drafted {
  /** Whether all ranks' caches forget alike. */
  alike: boolean;
  expected: number[];
  tokens: number[];
  accepted: number;
}

const [, , ...names] = process.argv;
const group = mx.distributed.init({ strict: true });

async function draft(name: string): Promise<Drafted> {
  const of = fixture<FormulaModel & { prompt: number[]; float32: { greedy: number[] } }>(`models/${name}.json`);
  const expected = of.float32.greedy;
  const model = await formulaModel(of);
  pipelineModel(model, group);
  const all = [...of.prompt, ...expected];
  const drafter: Drafter = {
    name: "a test",
    flag: "--test",
    propose: ({ length }, count) =>
      all.slice(length, length + count).map((token, i) => ((length + i) % 3 === 0 ? (token + 1) % 7 : token)),
    settle() {},
    dispose() {},
  };
  const tokens: number[] = [];
  let accepted = 0;
  const options = {
    maxTokens: expected.length,
    numDraftTokens: 4,
    onDrafts(_: number, right: number) {
      accepted += right;
    },
  };
  for await (const { token } of draftedSteps(model, drafter, of.prompt, options)) tokens.push(token);
  const alike = forgetAlike(model);
  model.dispose();
  return { alike, expected, tokens, accepted };
}

report(await resultsOf(names, draft));
