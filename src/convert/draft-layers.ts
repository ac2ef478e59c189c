/** A checkpoint's draft layers (multi-token prediction): beside the model's tensors, or in a file of their own. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { ExitCode, UserError } from "../errors";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { readSafetensorsHeader } from "../mlx/safetensors-header";
import { architectureOf, type DraftHead, type LanguageModel, makeDraftHead, modelTypesWith } from "../models";
import { parseArgs } from "../models/parse-args";
import { isQuantizable, type Packing, packing, type QuantizationConfig, quantize, quantizeForCheckpoint } from "../nn";
import { checkDtypes, checkQuantization } from "./check-weights";
import type { ModelConfig } from "./config";
import type { QuantizationPredicate } from "./quantize-model";

/** The file that `convert` keeps them in. mlx-lm reads no file of this name, so that it loads the model as ever. */
export const draftFile = "mtp.safetensors";

/** Ahead of their names in it. */
const prefix = "mtp.";

export interface DraftLayers {
  /**
   * The model's draft head, lazily.
   * @param tensors of the model's checkpoint, all of them
   * @param quantization as config.json has it
   * @throws UserError where there are no draft layers, or they do not fit the model
   */
  open(
    model: LanguageModel,
    tensors: ReadonlyMap<string, Tensor>,
    quantization: QuantizationConfig | undefined,
  ): DraftHead;
}

/**
 * Looks for the draft layers of a checkpoint, before anything is loaded.
 * @param folder null where the checkpoint is one file
 * @param source what errors call it
 * @throws UserError for a model type whose draft layers are not known, and for a file of them that is unsound
 */
export async function findDraftLayers(
  config: ModelConfig,
  folder: string | null,
  source: string,
): Promise<DraftLayers> {
  const { mtp, Args } = await architectureOf(config);
  if (!mtp) {
    throw new UserError(`models of type "${config.model_type}" have no draft layers that mlxlm knows`, {
      code: ExitCode.notFound,
      hint: `Models of these types have: ${(await modelTypesWith("mtp")).join(", ")}. With all others take --draft ngram.`,
    });
  }
  const args = parseArgs(Args, config, source);
  const file = folder !== null && existsSync(join(folder, draftFile)) ? join(folder, draftFile) : null;
  if (file !== null) await readSafetensorsHeader(file);
  return {
    open(model, tensors, quantization) {
      const all = file === null ? tensors : new Map([...tensors, ...mx.loadSafetensors(file).arrays]);
      const made = makeDraftHead(mtp, args, model, all);
      if (!made) {
        throw new UserError(`${source} has no draft layers (multi-token prediction): many checkpoints leave them out`, {
          code: ExitCode.notFound,
          hint: "Take the original checkpoint, or one made of it by mlxlm convert --keep-mtp.",
        });
      }
      const { head, weights } = made;
      const where = () => file ?? source;
      try {
        // Entries by path are of the model's layers: of these the shapes tell.
        const { group_size, bits, mode } = quantization ?? {};
        const common = { group_size, bits, mode } as QuantizationConfig;
        checkQuantization(head, common, weights, source, where);
        quantizeForCheckpoint(head, common, weights);
        checkDtypes(head, weights, where);
        head.loadWeights(weights);
      } catch (error) {
        head.dispose();
        throw error;
      }
      return head;
    },
  };
}

/** Quantizes draft layers as the model's layers were, lazily. Layers whose inputs are no whole groups stay. */
export function quantizeDraftHead(head: DraftHead, common: Packing, predicate?: QuantizationPredicate): void {
  quantize(head, {
    ...common,
    predicate(path, layer) {
      if (!isQuantizable(layer)) return false;
      const special = predicate?.(path);
      if (special === "leave") return false;
      const how = special ? packing({ ...special, groupSize: special.group_size }) : common;
      return layer.weight.dim(-1) % how.groupSize === 0 && how;
    },
  });
}

/** Their tensors under the names of the file. */
export const draftWeights = (head: DraftHead): Map<string, Tensor> =>
  new Map(head.namedParameters().map(([name, tensor]) => [`${prefix}${name}`, tensor]));
