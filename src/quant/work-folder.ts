/**
 * Where work lies that is not done yet: a folder beside its result, with the settings that it was begun with. What is
 * saved there is written whole or not at all.
 */
import { mkdir, rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import { replaceFile } from "../atomic-file";
import { ExitCode, UserError } from "../errors";
import { filesMark } from "../files-mark";
import { readJson } from "../json-file";

/** What must be the same for work to go on. */
export type WorkSettings = Readonly<Record<string, string | number | boolean | null>>;

const settingsName = "settings.json";

/** The folder for the work on a result that is to be saved as `target`. */
export const workFolder = (target: string) => `${resolve(target)}.unfinished`;

/**
 * Says whether there is work to go on with, before any begins.
 * @throws UserError where there is and nobody asked to go on, or there is none, or it had other settings
 */
export async function checkWork(
  target: string,
  settings: WorkSettings,
  { resume }: { resume: boolean },
): Promise<void> {
  const folder = workFolder(target);
  const begun = await Bun.file(join(folder, settingsName)).exists();
  if (begun && !resume) {
    throw new UserError(`${folder} holds work on ${target} that did not end`, {
      code: ExitCode.usage,
      hint: "Go on with it: --resume, with the same settings. Or delete that folder.",
    });
  }
  if (!begun && resume) {
    throw new UserError(`there is no work on ${target} to go on with`, {
      code: ExitCode.notFound,
      hint: "Name the folder that it was to be saved to: --mlx-path FOLDER. Or leave out --resume.",
    });
  }
  if (begun) compareSettings(await readJson(folder, settingsName), settings, folder);
}

function compareSettings(before: Readonly<Record<string, unknown>>, now: WorkSettings, folder: string): void {
  for (const name of new Set([...Object.keys(before), ...Object.keys(now)])) {
    if (before[name] === now[name]) continue;
    const [then, today] = [before[name], now[name]].map((value) => JSON.stringify(value) ?? "nothing");
    throw new UserError(`the work in ${folder} was begun with another ${name}: ${then}, not ${today}`, {
      code: ExitCode.usage,
      hint: "Go on with the settings that it was begun with, or delete that folder.",
    });
  }
}

/** The folder, made where it is not there yet. */
export async function openWork(target: string, settings: WorkSettings): Promise<string> {
  const folder = workFolder(target);
  await mkdir(folder, { recursive: true });
  const path = join(folder, settingsName);
  if (!(await Bun.file(path).exists())) {
    await replaceFile(path, async (temporary) => void (await Bun.write(temporary, JSON.stringify(settings, null, 2))));
  }
  return folder;
}

/** Deletes the folder, when the result is saved. */
export async function closeWork(target: string): Promise<void> {
  await rm(workFolder(target), { recursive: true, force: true });
}

/** A number that tells one list of token rows from another. */
export const fingerprint = (rows: readonly (readonly number[])[]) =>
  new Bun.CryptoHasher("sha256")
    .update(rows.map((row) => row.join()).join("\n"))
    .digest("hex")
    .slice(0, 16);

/** What tells a checkpoint folder's weights from others. */
export const weightsMark = (folder: string) => filesMark(folder, (name) => /\.safetensors$|^config\.json$/.test(name));
