/** What a small model of each architecture shows: the kinds of its caches, and that it has linear layers. */
import { readdirSync, readFileSync } from "node:fs";
import { UserError } from "../../src/errors";
import type { JsonObject } from "../../src/json-file";
import { createModel, type LanguageModel } from "../../src/models";
import type { MeasuredFacts } from "../../src/models/catalogue";
import { ownName } from "../../src/models/registry";
import { kindOf } from "../../src/nn";
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

export async function measureModels(): Promise<MeasuredFacts> {
  const found: Record<string, { caches: Set<string>; linear: boolean }> = {};
  for (const config of configurations()) {
    const name = ownName(config.model_type as string);
    const model = await createModel(config, name);
    found[name] ??= { caches: new Set(), linear: false };
    const facts = found[name];
    for (const cache of model.makeCache()) {
      facts.caches.add(kindOf(cache)!.name);
      cache.dispose();
    }
    facts.linear ||= hasLinear(model);
    model.dispose();
  }
  const sorted = Object.entries(found).sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(sorted.map(([name, { caches, linear }]) => [name, { caches: [...caches].sort(), linear }]));
}

/** The table as a module of src/models. */
export function factsSource(measured: MeasuredFacts): string {
  const rows = Object.entries(measured).map(
    ([name, { caches, linear }]) =>
      `  ${JSON.stringify(name)}: { caches: ${JSON.stringify(caches)}, linear: ${linear} },`,
  );
  return `// Made by bun run docs, from the configurations in test/fixtures. Do not edit.
export const measuredFacts: Readonly<Record<string, { caches: readonly string[]; linear: boolean }>> = {
${rows.join("\n")}
};
`;
}
