/** A checkpoint folder as one GGUF file, for llama.cpp and its relatives. */
import { basename, resolve } from "node:path";
import { ExitCode, UserError } from "../../errors";
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import { type LanguageModel, ropeFactorsName } from "../../models";
import { dequantize } from "../../nn";
import { eosTokenIds } from "../config";
import { openWeights } from "../load";
import { readConfig } from "../source";
import { type ExportPlan, exportPlan } from "./export-plan";
import { tokenizerFields } from "./export-tokenizer";
import type { WrittenType } from "./types";
import { type WriteOptions, type WrittenTensor, writeGguf } from "./write";

export interface ExportOptions extends WriteOptions {
  /** What matrices become (F16); all else is F32. */
  type?: "F16" | "Q8_0";
}

/** `general.file_type` */
const fileTypes = { F16: 1, Q8_0: 7 };

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
  const config = await readConfig(folder);
  const plan = await exportPlan(config, folder);
  const { model } = await openWeights(folder, config);
  let tokenizer: Awaited<ReturnType<typeof tokenizerFields>>;
  let tensors: Map<string, WrittenTensor>;
  try {
    tokenizer = await tokenizerFields(folder, model.vocabSize, eosTokenIds(config));
    dequantize(model);
    tensors = mx.keep(mx.scope(() => writtenTensors(model, plan, type, folder)));
  } finally {
    model.dispose();
  }
  const named = String(config._name_or_path ?? resolve(folder));
  await writeGguf(
    path,
    new Map([
      ["general.architecture", ["string", plan.facts.architecture]],
      ["general.name", ["string", basename(named)]],
      ["general.file_type", ["uint32", fileTypes[type]]],
      ["general.quantization_version", ["uint32", quantizationVersion]],
      ["general.alignment", ["uint32", 32]],
      ...plan.fields,
      ...tokenizer,
    ]),
    tensors,
    options,
  );
}

/** The model's tensors as the file has them, lazily. */
function writtenTensors(
  model: LanguageModel,
  { facts, change, ropeFactors: factors }: ExportPlan,
  type: "F16" | "Q8_0",
  folder: string,
): Map<string, WrittenTensor> {
  const tensors = new Map<string, WrittenTensor>();
  for (const [name, weight] of model.namedParameters()) {
    const written = facts.names.ofParameter(name);
    if (written === null) throw noPlace(name, folder);
    tensors.set(written, { tensor: change(name, weight), type: typeOf(written, weight, type) });
  }
  if (factors) tensors.set(ropeFactorsName, { tensor: mx.array(factors, "float32"), type: "F32" });
  return tensors;
}

/** llama.cpp computes with vectors, with biases and with the gates of experts in float32 only. */
function typeOf(name: string, weight: Tensor, type: "F16" | "Q8_0"): WrittenType {
  if (weight.ndim === 1 || name.endsWith(".bias") || name.includes("ffn_gate_inp")) return "F32";
  return type === "Q8_0" && weight.dim(-1) % 32 !== 0 ? "F16" : type;
}

const noPlace = (name: string, folder: string) =>
  new UserError(`the parameter ${name} of ${folder} has no place in a GGUF file`, {
    code: ExitCode.notFound,
    hint: "Save the model without a GGUF file.",
  });
