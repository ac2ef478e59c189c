import { expect, test } from "bun:test";
import { ranksOf } from "./across-ranks";
import type { Request } from "./tasks/request";

test("requests of one context have one rank, and ranks take contexts in turn", () => {
  const choice = (context: string, continuation: string): Request => ({ type: "loglikelihood", context, continuation });
  const text = (text: string): Request => ({ type: "loglikelihood_rolling", text });
  const requests = [choice("a", "x"), choice("a", "y"), choice("b", "x"), text("t"), choice("a", "z"), text("t")];
  expect(ranksOf(requests, 2)).toEqual([0, 0, 1, 0, 0, 1]);
  expect(ranksOf(requests, 3)).toEqual([0, 0, 1, 2, 0, 0]);
  expect(ranksOf(requests, 1)).toEqual([0, 0, 0, 0, 0, 0]);
});
