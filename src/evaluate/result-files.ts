/** Files that an evaluation leaves: results, and what is known of each row. */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { replaceFile } from "../atomic-file";
import { ExitCode, UserError } from "../errors";
import type { Evaluation } from "./run-tasks";

/** The version of lm-evaluation-harness whose results these are. */
export const harnessVersion = "0.4.13";

export interface ResultNames {
  outputDir: string;
  /** As the user wrote it. */
  model: string;
  tasks: readonly string[];
  numShots?: number;
}

/** mlx-lm's name for the file of results; the folder is made. @throws UserError where it cannot be */
export async function resultPath({ outputDir, model, tasks, numShots }: ResultNames): Promise<string> {
  await mkdir(outputDir, { recursive: true }).catch((cause: Error) => {
    throw new UserError(`the folder ${outputDir} cannot be made: ${cause.message}`, {
      code: ExitCode.resources,
      hint: "Name another one: --output-dir FOLDER",
      cause,
    });
  });
  const shots = numShots === undefined ? [] : [`${numShots}`.padStart(2, "0")];
  const name = ["eval", model, harnessVersion, ...shots, ...tasks].join("_").replaceAll(/[\\/]/g, "_");
  // File systems take 255 bytes; a suffix follows.
  return join(outputDir, name.slice(0, 180));
}

/** The results by task, as mlx-lm writes them; and one file of samples a task. Returns the paths. */
export async function writeResults(path: string, { results, samples = {} }: Evaluation): Promise<string[]> {
  await replaceFile(path, (temporary) => writeFile(temporary, JSON.stringify(results, null, 4)));
  const paths = [path];
  for (const [task, rows] of Object.entries(samples)) {
    const file = `${path}_samples_${task.replaceAll(/[^\w.-]/g, "_")}.jsonl`;
    const lines = rows.map((row) => `${JSON.stringify(row)}\n`).join("");
    await replaceFile(file, (temporary) => writeFile(temporary, lines));
    paths.push(file);
  }
  return paths;
}
