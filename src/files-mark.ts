/** What tells the files of one folder from those of another, and from themselves after a change. */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";

/** 16 digits of a hash over names, sizes and dates. @param passes other files do not count */
export async function filesMark(folder: string, passes: (name: string) => boolean = () => true): Promise<string> {
  const names = (await readdir(folder)).filter(passes).sort();
  const facts = await Promise.all(
    names.map(async (name) => {
      const { size, mtimeMs } = await stat(join(folder, name));
      return `${name} ${size} ${mtimeMs}`;
    }),
  );
  return new Bun.CryptoHasher("sha256").update(facts.join("\n")).digest("hex").slice(0, 16);
}
