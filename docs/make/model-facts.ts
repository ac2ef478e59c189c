/** What a small model of each architecture shows: the kinds of its caches, and that it has linear layers. */
import { readdirSync, readFileSync } from "node:fs";
import { UserError } from "../../src/errors";
import type { JsonObject } from "../../src/json-file";
import * as mx from "../../src/mlx";
import { createModel, type LanguageModel } from "../../src/models";
import type { Measured, MeasuredFacts, Share } from "../../src/models/measured";
import { ownName } from "../../src/models/registry";
import { kindOf } from "../../src/nn";
import { shardModel } from "../../src/nn/shard";
import { linearToLora, trainableParameters } from "../../src/tune/linear-to-lora";

const fixtures = new URL("../../test/fixtures/", import.meta.url);

const read = (name: string) => JSON.parse(readFileSync(new URL(name, fixtures), "utf8"));

/** The configurations of the parity fixtures, which have every architecture. */
function configurations(): JsonObject[] {
  const models = readdirSync(new URL("models/", fixtures)).map((name) => read(`models/${name}`).config);
  const formats = Object.values(read("formats.json").cases).map((one) => (one as { config: JsonObject }).config);
  return [...models, read("prism.json").config, ...formats];
}

/** Whether it has plain linear layers, which adapters and quantizers take. */
function hasLinear(model: LanguageModel): boolean {
  model.freeze();
  try {
    linearToLora(model, -1, { rank: 4, scale: 4, dropout: 0, dora: false });
    return trainableParameters(model).length > 0;
  } catch (error) {
    if (error instanceof UserError) return false;
    throw error;
  }
}

/** How many numbers its layers have. */
const sizeOfLayers = (model: LanguageModel): number =>
  model
    .namedParameters()
    .filter(([name]) => /\.\d+\./.test(name))
    .reduce((sum, [, { size }]) => sum + size, 0);

/** How much of its layers the first of two processes does not have. Small models have more that is whole than large ones. */
function divided(model: LanguageModel): Share {
  const whole = sizeOfLayers(model);
  mx.scope(() => shardModel(model, { id: 0, rank: 0, size: 2 } as mx.distributed.Group));
  const left = 1 - sizeOfLayers(model) / whole;
  return left > 0.4 ? "all" : left > 0.05 ? "some" : "none";
}

export async function measureModels(): Promise<MeasuredFacts> {
  const found: Record<string, { caches: Set<string>; linear: boolean; ranks: Share }> = {};
  for (const config of configurations()) {
    const name = ownName(config.model_type as string);
    const model = await createModel(config, name);
    found[name] ??= { caches: new Set(), linear: false, ranks: "none" };
    const facts = found[name];
    for (const cache of model.makeCache()) {
      facts.caches.add(kindOf(cache)!.name);
      cache.dispose();
    }
    facts.linear ||= hasLinear(model);
    model.dispose();
    const other = await createModel(config, name);
    const ranks = divided(other);
    if (facts.ranks !== "all" && ranks !== "none") facts.ranks = ranks;
    other.dispose();
  }
  const sorted = Object.entries(found).sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(
    sorted.map(([name, { caches, ...facts }]): [string, Measured] => [name, { caches: [...caches].sort(), ...facts }]),
  );
}

/** The table as a module of src/models. */
export function factsSource(measured: MeasuredFacts): string {
  const rows = Object.entries(measured).map(
    ([name, { caches, linear, ranks }]) =>
      `  ${JSON.stringify(name)}: { caches: ${JSON.stringify(caches)}, linear: ${linear}, ranks: "${ranks}" },`,
  );
  return `// Made by bun run docs, from the configurations in test/fixtures. Do not edit.
import type { MeasuredFacts } from "../measured";

export const measuredFacts: MeasuredFacts = {
${rows.join("\n")}
};
`;
}
