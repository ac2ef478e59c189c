/** `mlxlm paths`: where this build keeps its files, and removing what older builds left. */
import { command } from "../src/cli/command";
import { cacheFolder, temporaryFolder } from "../src/embedded";
import { type Cleaned, cleanCache, type UnpackedFolder, unpackedFolders } from "../src/unpacked-folders";
import { pathsFlags } from "./paths.flags";

export default command({
  name: "paths",
  summary: "Show where mlxlm keeps its files; remove what older builds unpacked",
  examples: ["mlxlm paths", "mlxlm paths --clean"],
  flags: pathsFlags,

  async run({ flags, out }) {
    const { sizeInWords, timeInWords } = await import("../src/cli/table");
    const { hubCache } = await import("../src/hub/environment");
    const caches = [...new Set([cacheFolder(), temporaryFolder()])];
    const cleaned: Cleaned[] = flags.clean ? caches.map(cleanCache) : [];
    const folders = caches.flatMap(unpackedFolders);
    const older = folders.filter(({ bundle }) => bundle === null);
    const removed = cleaned.flatMap((one) => one.removed);

    const line = (what: string, where: string) => out.text(`${what.padEnd(14)} ${where}\n`);
    const words = ({ path, size, lastUsed }: UnpackedFolder) =>
      `${path}  ${sizeInWords(size)}, last used ${timeInWords(lastUsed)}`;
    line("executable", process.execPath);
    line("models", hubCache());
    line("unpacked", caches[0]!);
    for (const folder of folders) line(`  ${folder.bundle ?? "older build"}`, words(folder));
    for (const folder of removed) line("  removed", words(folder));
    for (const { path, users } of cleaned.flatMap((one) => one.kept)) {
      const who = users === null ? "whether it is in use can't be known here" : `in use by process ${users.join(", ")}`;
      if (users === null || users.length > 0) out.warn(`older builds' folders were kept: ${path} is ${who}`);
    }
    if (!flags.clean && older.length > 0) out.info("Remove the older builds' folders: mlxlm paths --clean");
    out.result({
      executable: process.execPath,
      models: hubCache(),
      cache: caches[0],
      unpacked: folders.map(({ path, bundle, size, lastUsed }) => ({ path, bundle, size, last_used: lastUsed })),
      removed: removed.map(({ path, size }) => ({ path, size })),
    });
  },
});
