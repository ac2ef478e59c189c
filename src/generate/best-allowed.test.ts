import { expect, test } from "bun:test";
import { join } from "node:path";
import * as mx from "../mlx";
import { loadTokenizer } from "../text/tokenizer";
import { bestAllowed } from "./best-allowed";
import { constrain } from "./constrain";
import { loneMask } from "./masks";

const tokenizer = await loadTokenizer(join(import.meta.dir, "../../test/fixtures/checkpoint"));
const vocabularySize = 400;
const rows = 40;

test("is what greedy choice takes under a mask", async () => {
  const schema = { type: "array", items: { type: "string", maxLength: 9 }, minItems: 2 };
  const prompt = await tokenizer.encode("Say it:");
  const constraint = await constrain({ type: "json_schema", schema }, { tokenizer, vocabularySize, prompt });
  mx.random.seed(3);
  const logprobs = mx.random.normal({ shape: [rows, vocabularySize] }).astype("bfloat16");
  const chosen: number[] = [];
  mx.scope(() => {
    for (let row = 0; row < rows && !constraint.isComplete; row++) {
      const own = mx.sliceAxis(logprobs, 0, row, row + 1);
      const masked = mx.grammar.maskLogits(own, loneMask(constraint, vocabularySize).bits!);
      const expected = mx.argmax(masked, { axis: -1 }).item();
      const best = bestAllowed(constraint, logprobs, row);
      // Where it says null, nothing has changed.
      if (best === null) constraint.accept(expected);
      else expect(best).toBe(expected);
      chosen.push(best ?? -1);
    }
  });
  expect(new Set(chosen).size).toBeGreaterThan(8);
  constraint.dispose();
  logprobs.dispose();
});
