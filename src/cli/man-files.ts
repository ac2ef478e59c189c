/** Man pages as files. */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { replaceFile } from "../atomic-file";
import { type ManSource, manPages } from "./man";

/** Writes the pages into a folder, which is made. @returns their paths @throws UserError where it cannot be written */
export async function writeManPages(folder: string, source: ManSource): Promise<string[]> {
  await mkdir(folder, { recursive: true });
  const paths: string[] = [];
  for (const [name, page] of manPages(source)) {
    const path = join(folder, name);
    await replaceFile(path, (temporary) => writeFile(temporary, page));
    paths.push(path);
  }
  return paths;
}
