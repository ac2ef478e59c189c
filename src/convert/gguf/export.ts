/** A checkpoint folder as one GGUF file, for llama.cpp and its relatives. */
import { basename, resolve } from "node:path";
import { ExitCode, UserError } from "../../errors";
import * as mx from "../../mlx";
import type { GgufField, LanguageModel } from "../../models";
import { dequantize } from "../../nn";
import { eosTokenIds } from "../config";
import { openWeights } from "../load";
import { openSource, readConfig } from "../source";
import { type ExportPlan, exportPlan } from "./export-plan";
import { tokenizerFields } from "./export-tokenizer";
import { type ExportType, fileTypes, writtenTypeOf } from "./export-types";
import { type WriteOptions, type WrittenTensor, writeGguf } from "./write";

export interface ExportOptions extends WriteOptions {
  /** What matrices become (F16); all else is F32. */
  type?: ExportType;
}

/** Version of the layout of quantized blocks. */
const quantizationVersion = 2;

/**
 * Writes the model in `folder` to `path`, unpacked where it is quantized. Tensors are read, changed and written one
 * after the other.
 * @throws UserError for an architecture or tokenizer that GGUF has no form for, or a file that cannot be written
 */
export async function exportGguf(
  folder: string,
  path: string,
  { type = "F16", ...options }: ExportOptions = {},
): Promise<void> {
  if ((await openSource(folder)).folder === null) {
    throw new UserError(`${folder} is a GGUF file already`, {
      code: ExitCode.usage,
      hint: "Convert it to a folder first: mlxlm convert --hf-path FILE --mlx-path FOLDER -d",
    });
  }
  const config = await readConfig(folder);
  const plan = await exportPlan(config, folder);
  const { model } = await openWeights(folder, config);
  let tokenizer: Awaited<ReturnType<typeof tokenizerFields>>;
  let tensors: Map<string, WrittenTensor>;
  let numbers: [string, GgufField][];
  try {
    tokenizer = await tokenizerFields(folder, model.vocabSize, eosTokenIds(config));
    dequantize(model);
    numbers = plan.numbers(new Map(model.namedParameters()));
    tensors = mx.keep(mx.scope(() => writtenTensors(model, plan, type, folder)));
  } finally {
    model.dispose();
  }
  const named = String(config._name_or_path ?? resolve(folder));
  await writeGguf(
    path,
    new Map([
      ["general.architecture", ["string", plan.architecture]],
      ["general.name", ["string", basename(named)]],
      ["general.file_type", ["uint32", fileTypes[type]]],
      ["general.quantization_version", ["uint32", quantizationVersion]],
      ["general.alignment", ["uint32", 32]],
      ...plan.fields,
      ...numbers,
      ...tokenizer,
    ]),
    tensors,
    options,
  );
}

/** The model's tensors as the file has them, lazily. */
function writtenTensors(
  model: LanguageModel,
  { change, gather, factors, experts }: ExportPlan,
  type: ExportType,
  folder: string,
): Map<string, WrittenTensor> {
  const tensors = new Map<string, WrittenTensor>();
  const parameters = model.namedParameters();
  const recipe = {
    layers: model.layers.length,
    experts,
    isTied: !parameters.some(([name]) => name.endsWith("lm_head.weight")),
  };
  const changed = parameters.flatMap(([name, weight]) => change(name, weight) ?? noPlace(name, folder));
  for (const [name, tensor] of [...changed, ...gather(new Map(parameters))]) {
    const isTable = !mx.isFloating(tensor.dtype);
    tensors.set(name, { tensor, type: isTable ? "I32" : writtenTypeOf(name, tensor.shape, type, recipe) });
  }
  for (const [name, values] of Object.entries(factors)) {
    tensors.set(name, { tensor: mx.array([...values], "float32"), type: "F32" });
  }
  return tensors;
}

function noPlace(name: string, folder: string): never {
  throw new UserError(`the parameter ${name} of ${folder} has no place in a GGUF file`, {
    code: ExitCode.notFound,
    hint: "Save the model without a GGUF file.",
  });
}
