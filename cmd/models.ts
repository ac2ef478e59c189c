/** `mlxlm models`: the models in the Hugging Face cache, one by one. */
import { type Stats, statSync } from "node:fs";
import { command } from "../src/cli/command";
import type { Output } from "../src/cli/output";
import { ExitCode, UserError } from "../src/errors";
import { nearest } from "../src/nearest";
import { modelsFlags } from "./models.flags";

type CachedModel = import("../src/convert/cached-checkpoints").CachedCheckpoint;
type LocalModel = import("../src/convert/local-checkpoint").LocalCheckpoint;

const actions = ["list", "info", "fit", "arch", "rm"] as const;

export default command({
  name: "models",
  summary: "Show models of the cache and what they take, or remove some",
  examples: [
    "mlxlm models list",
    "mlxlm models info mlx-community/Qwen3-4B-4bit",
    "mlxlm models info ./my-model",
    "mlxlm models fit mlx-community/Qwen3-4B-4bit --context 32768",
    "mlxlm models arch qwen",
    "mlxlm models rm mlx-community/Qwen3-4B-4bit",
  ],
  flags: modelsFlags,

  async run({ flags, out, signal }) {
    const [word = "list", ...names] = flags.words;
    const action = actions.find((one) => one === word);
    if (!action) {
      const [similar] = nearest(word, actions, 1);
      throw new UserError(`models cannot "${word}"`, {
        code: ExitCode.usage,
        hint: `${similar ? `Did you mean ${similar}? ` : ""}It knows ${actions.join(", ")}.`,
      });
    }
    if (action === "arch") return arch(names, out);
    if (action !== "list" && names.length === 0) {
      throw new UserError(`models ${action} needs the name of a model`, {
        code: ExitCode.usage,
        hint: action === "fit" ? "A repo, a folder or a GGUF file." : "mlxlm models list shows those that there are.",
      });
    }
    if (action === "fit") return fit(names, flags.context, out, signal);
    const models = await cachedModels(out);
    if (action === "list") {
      const shown = models.filter(({ id }) => names.every((part) => id.toLowerCase().includes(part.toLowerCase())));
      await list(shown, out);
      return out.result({ models: shown });
    }
    const asked = [...new Set(names)];
    if (action === "info") {
      const chosen = await Promise.all(asked.map(async (name) => (await local(name, models)) ?? named(name, models)));
      for (const model of chosen) out.text(`${await described(model)}\n`);
      return out.result({ models: chosen });
    }
    const chosen = await Promise.all(asked.map((name) => removable(name, models)));
    out.result({ removed: await remove(chosen, flags.yes, out) });
  },
});

/** Whether each fits this machine; exit code 5 where one does not. */
async function fit(names: readonly string[], context: number | undefined, out: Output, signal: AbortSignal) {
  const { fitInWords } = await import("../src/cli/model-fit");
  const { fitModel } = await import("../src/evaluate/fit");
  const fits: Awaited<ReturnType<typeof fitModel>>[] = [];
  for (const name of new Set(names)) {
    const one = await fitModel(name, { context, signal, onWarning: (line) => out.warn(line) });
    out.text(fitInWords(one), { colours: true });
    fits.push(one);
  }
  out.result({ models: fits });
  if (fits.some((one) => !one.fits)) process.exitCode = ExitCode.resources;
}

/**
 * The model types that run here, or those with one of the parts in their names or families.
 * @throws UserError for a part that none has
 */
async function arch(parts: readonly string[], out: Output): Promise<void> {
  const { modelTypesTable } = await import("../src/cli/model-types");
  const { catalogue } = await import("../src/models/catalogue");
  const all = await catalogue();
  const withPart = (part: string) =>
    all.filter((one) => [one.model_type, one.family].some((text) => text.toLowerCase().includes(part.toLowerCase())));
  for (const part of parts) {
    if (withPart(part).length > 0) continue;
    const similar = nearest(
      part,
      all.map(({ model_type }) => model_type),
    );
    throw new UserError(`no model type has "${part}" in its name`, {
      code: ExitCode.notFound,
      hint: similar.length > 0 ? `The nearest: ${similar.join(", ")}` : "All of them: mlxlm models arch",
    });
  }
  const wanted = new Set(parts.flatMap(withPart));
  const shown = parts.length === 0 ? all : all.filter((one) => wanted.has(one));
  out.text(`${modelTypesTable(shown)}
`);
  out.result({ architectures: shown });
}

/** Those of the cache; none where there is no cache yet. */
async function cachedModels(out: Output): Promise<CachedModel[]> {
  const { cachedCheckpoints } = await import("../src/convert/cached-checkpoints");
  return cachedCheckpoints((problem) => out.warn(problem)).catch((error) => {
    if (error instanceof UserError && error.code === ExitCode.notFound) return [];
    throw error;
  });
}

/** The demo, a folder or a file; null for what the cache has, and for what is nowhere. */
async function local(name: string, models: readonly CachedModel[]): Promise<LocalModel | null> {
  if (models.some(({ id }) => id === name)) return null;
  const { demoFolder, demoName } = await import("../src/demo/folder");
  const { localCheckpoint } = await import("../src/convert/local-checkpoint");
  return localCheckpoint(name, name === demoName ? demoFolder() : name);
}

/** @throws UserError for a model that is not the cache's */
async function removable(name: string, models: readonly CachedModel[]): Promise<CachedModel> {
  const own = await local(name, models);
  if (!own) return named(name, models);
  throw new UserError(`${name} is not in the cache, and only what is there can be removed`, {
    code: ExitCode.usage,
    hint: name === own.path ? `The folder is your own: rm -r ${name}` : "It is part of mlxlm.",
  });
}

function named(name: string, models: readonly CachedModel[]): CachedModel {
  const model = models.find(({ id }) => id === name);
  if (model) return model;
  const facts = statSync(name, { throwIfNoEntry: false });
  if (facts || /^(\.{1,2}[\\/]|[\\/~])/.test(name)) throw noLocalModel(name, facts);
  const names = models.map(({ id }) => id);
  const [similar] = nearest(name, names, 1);
  throw new UserError(`there is no model ${name} in the cache`, {
    code: ExitCode.notFound,
    hint: nextStep(similar, names),
  });
}

/** What is at a path that has no model; nothing at all where there are no facts. */
function noLocalModel(name: string, facts: Stats | undefined): UserError {
  const lacks = facts?.isDirectory() ? "it has no config.json that can be read" : "it is no GGUF file that can be read";
  return new UserError(facts ? `${name} is no model: ${lacks}` : `there is no folder ${name}`, {
    code: ExitCode.notFound,
    hint: facts ? "Name the folder that holds config.json and the weights." : "Check the path.",
  });
}

function nextStep(similar: string | undefined, names: readonly string[]): string {
  if (similar) return `Did you mean ${similar}?`;
  if (names.length === 0) return "The cache is empty: a model is downloaded when it is first used.";
  return "mlxlm models list shows those that there are.";
}

async function list(models: readonly CachedModel[], out: Output): Promise<void> {
  const { fittingTable, sizeInWords, timeInWords } = await import("../src/cli/table");
  if (models.length === 0) return out.text("no models\n");
  const rows = models.map((model) => [
    model.id,
    sizeInWords(model.size).padStart(8),
    model.quantization ?? model.dtype ?? "-",
    model.context_length ?? "-",
    timeInWords(model.accessed),
    model.path,
  ]);
  out.text(`${fittingTable(["MODEL", "SIZE", "WEIGHTS", "CONTEXT", "LAST USED", "PATH"], rows)}\n`);
}

async function described(model: CachedModel | LocalModel): Promise<string> {
  const { sizeInWords, timeInWords } = await import("../src/cli/table");
  const { modelTypes } = await import("../src/models");
  const cached = "revisions" in model ? model : null;
  const isEmpty = "has_weights" in model && !model.has_weights;
  const packed = [model.quantization, model.dtype].filter(Boolean).join("; ") || "unknown";
  const incomplete = cached?.incomplete ? `, ${sizeInWords(cached.incomplete)} incomplete` : "";
  const lines = {
    type: typeInWords(model.model_type, modelTypes),
    size: `${sizeInWords(model.size)} in ${model.files} ${model.files === 1 ? "file" : "files"}${incomplete}`,
    weights: isEmpty ? "none: there is no .safetensors file" : packed,
    context: model.context_length === null ? "unknown" : `${model.context_length} tokens`,
    ...(cached ? { "last used": timeInWords(cached.accessed) } : {}),
    changed: timeInWords(model.modified),
    ...(cached ? { revisions: cached.revisions.join(", ") || "none: its download was interrupted" } : {}),
    path: cached?.snapshot ?? model.path,
  };
  const width = Math.max(...Object.keys(lines).map(({ length }) => length)) + 2;
  return [model.id, ...Object.entries(lines).map(([name, value]) => `  ${name.padEnd(width)}${value}`)].join("\n");
}

function typeInWords(type: string | null, supported: readonly string[]): string {
  if (type === null) return "unknown: it has no config.json that can be read";
  return supported.includes(type) ? type : `${type}: models of this type are not supported`;
}

/** Names of those that were removed. */
async function remove(models: readonly CachedModel[], sure: boolean, out: Output): Promise<string[]> {
  const { confirmed } = await import("../src/cli/confirm");
  const { sizeInWords } = await import("../src/cli/table");
  const { removeRepo } = await import("../src/hub/cached-models");
  for (const { id, size, incomplete, path } of models) out.text(`${id}  ${sizeInWords(size + incomplete)}  ${path}\n`);
  if (!sure && !(await confirmed(`Remove ${models.length === 1 ? "it" : `all ${models.length}`}?`, out))) {
    out.text("Nothing was removed.\n");
    return [];
  }
  for (const model of models) await removeRepo(model);
  out.text("Removed.\n");
  return models.map(({ id }) => id);
}
