/** Making a model with its weights ready to run: one order of steps for all who run models. */
import * as mx from "../mlx";
import type { Architecture } from "../models";
import { fuseProjections, holdGains, holdTransposes, type Module } from "../nn";

/** What the architecture says of it. */
type Facts = Pick<Architecture, "joins">;

/**
 * The steps, in their order. Each wants what the one before leaves: a model that is cut into shards is cut before its
 * projections become one, transposes are views of what was fused, and pages can be advised when memory is allocated.
 */
const steps: readonly ((model: Module, facts: Facts) => void)[] = [
  (model, { joins }) => fuseProjections(model, joins),
  (model) => holdTransposes(model),
  (model) => holdGains(model),
  (model) => mx.eval(model.parameters()),
  () => mx.random.settle(),
  (model) => mx.preferHugePages(model.parameters()),
];

/** Evaluates the weights. Call it when no scope or map holds them any more: else they are in memory twice for a while. */
export function makeReady(model: Module, facts: Facts): void {
  for (const step of steps) step(model, facts);
  mx.clearCache();
}
