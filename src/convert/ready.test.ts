/** A model that was made ready computes what it computed before, and has joined what its architecture says. */
import { expect, test } from "bun:test";
import { row } from "../../test/parity/decode";
import { expectValues } from "../../test/parity/fixtures";
import { tinyModel } from "../../test/tiny-model";
import * as mx from "../mlx";
import type { Module } from "../nn";
import { makeReady } from "./ready";

const joined = (model: Module) =>
  model
    .namedModules()
    .filter(([, module]) => "_joint" in module && module._joint !== undefined)
    .map(([path]) => path.replace(/^.*layers\.\d+\./, ""));

const logits = (model: Awaited<ReturnType<typeof tinyModel>>) =>
  mx.scope(() => model.forward(row([1, 2, 3])).toArray() as Float32Array);

test.each([
  ["the usual ones", undefined, ["self_attn.q_proj", "mlp.gate_proj"]],
  ["its own", [["k_proj", "v_proj"]], ["self_attn.k_proj"]],
] as const)("joins %s, and frees all it made", async (_, joins, expected) => {
  mx.eval(mx.random.state.get());
  const live = mx.liveHandles();
  const model = await tinyModel();
  const before = logits(model);
  makeReady(model, { joins: joins?.map((names) => [...names]) });
  expect([...new Set(joined(model))]).toEqual([...expected]);
  expectValues(logits(model), before, { tolerance: 1e-5 });
  model.dispose();
  expect(mx.liveHandles()).toBe(live);
});
