/** Sensitivities in a file, as mlx-lm writes it: a JSON list of [layer, number]. */
import { z } from "zod";
import { replaceFile } from "../atomic-file";
import { ExitCode, UserError } from "../errors";
import { inputFile } from "../input-file";
import type { Sensitivities } from "./sensitivities";

const Pairs = z.array(z.tuple([z.string(), z.number()]));

/** The file for a model that was named so; in the working folder. */
export const sensitivityFile = (model: string) => `${model.replaceAll("/", "_")}_sensitivities.json`;

export async function writeSensitivities(path: string, sensitivities: Sensitivities): Promise<void> {
  const text = JSON.stringify([...sensitivities]);
  await replaceFile(path, async (temporary) => void (await Bun.write(temporary, text)));
}

/**
 * @param layers that must have a number
 * @throws UserError where the file is missing, is no such list, or lacks a layer
 */
export async function readSensitivities(path: string, layers: readonly string[]): Promise<Sensitivities> {
  if ((await inputFile(path)) === null) {
    throw new UserError(`there is no file ${path}`, { code: ExitCode.notFound, hint: "Check --sensitivities." });
  }
  const parsed = Pairs.safeParse(
    await Bun.file(path)
      .json()
      .catch(() => null),
  );
  if (!parsed.success) {
    throw new UserError(`${path} is no JSON list of [layer, number]`, {
      hint: "Leave out --sensitivities to have them estimated.",
    });
  }
  const known = new Map(parsed.data);
  const missing = layers.filter((layer) => !known.has(layer));
  if (missing.length > 0) {
    const more = missing.length > 1 ? ` and ${missing.length - 1} more` : "";
    throw new UserError(`${path} says nothing of ${missing[0]}${more}`, {
      hint: "It belongs to another model. Leave out --sensitivities to have them estimated.",
    });
  }
  return new Map(layers.map((layer) => [layer, known.get(layer)!]));
}
