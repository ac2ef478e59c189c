/** Walking folders. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";

/**
 * Names of the files and links in a folder and the folders in it, with slashes, in order. Links to folders are not
 * entered: they may go round.
 * @param passes files and folders of other names are passed over
 */
export async function filesBelow(folder: string, passes: (name: string) => boolean = () => true): Promise<string[]> {
  const names: string[] = [];
  const walk = async (prefix: string) => {
    for (const entry of await readdir(join(folder, prefix), { withFileTypes: true })) {
      if (!passes(entry.name)) continue;
      if (entry.isDirectory()) await walk(`${prefix}${entry.name}/`);
      else names.push(prefix + entry.name);
    }
  };
  await walk("");
  return names.sort();
}
