/** Blocks that are quantized already, one file each: what a run that goes on takes over. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { replaceFile } from "../atomic-file";
import { UserError } from "../errors";
import * as mx from "../mlx";
import { readSafetensorsHeader } from "../mlx/safetensors-header";
import { type Module, type Packing, quantize } from "../nn";

/** What a block lost on the calibration data: mean squared errors of its output. */
const BlockLoss = z.object({
  /** Rounded to nearest. */
  plain: z.number(),
  /** With the factors and limits that were found. */
  searched: z.number(),
});

export type BlockLoss = z.infer<typeof BlockLoss>;

const fileOf = (folder: string, index: number) => join(folder, `block-${String(index).padStart(5, "0")}.safetensors`);

const factsKey = "loss";

export async function saveBlock(folder: string, index: number, block: Module, loss: BlockLoss): Promise<void> {
  const tensors = new Map(block.namedParameters());
  const facts = { [factsKey]: JSON.stringify(loss) };
  await replaceFile(fileOf(folder, index), (path) => mx.saveSafetensors(path, tensors, facts));
}

export const isBlockSaved = (folder: string, index: number) => existsSync(fileOf(folder, index));

/**
 * Gives a block of the original model the quantized form in which it was saved.
 * @throws UserError where the file is unsound or belongs to another model
 */
export async function loadBlock(folder: string, index: number, block: Module, how: Packing): Promise<BlockLoss> {
  const path = fileOf(folder, index);
  const { metadata } = await readSafetensorsHeader(path);
  const loss = lossOf(metadata.get(factsKey), path);
  mx.scope(() => {
    const { arrays } = mx.loadSafetensors(path);
    mx.scope(() => quantize(block, { ...how, predicate: (name) => arrays.has(`${name}.scales`) }));
    block.loadWeights(arrays);
  });
  mx.eval(block.parameters());
  return loss;
}

function lossOf(text: string | undefined, path: string): BlockLoss {
  let value: unknown;
  try {
    value = JSON.parse(text ?? "");
  } catch {
    value = undefined;
  }
  const parsed = BlockLoss.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new UserError(`${path} does not say what its block lost`, {
    hint: "Delete the file: the block is then quantized again.",
  });
}
