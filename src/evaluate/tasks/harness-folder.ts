/** Where the tasks of lm-evaluation-harness lie: the folder that a user names, or an installed package. */
import { readdir, stat } from "node:fs/promises";
import { delimiter, dirname, join } from "node:path";
import { environment } from "../../environment";
import { ExitCode, UserError } from "../../errors";
import { homeFolder } from "../../home";

const isFolder = (path: string) =>
  stat(path).then(
    (facts) => facts.isDirectory(),
    () => false,
  );

/**
 * The folder of task files in a checkout, a package, or an environment.
 * @throws UserError where it has none
 */
export async function harnessTasks(folder: string): Promise<string> {
  for (const path of [join(folder, "lm_eval/tasks"), join(folder, "tasks")]) if (await isFolder(path)) return path;
  const [installed] = await packagesIn(folder);
  if (installed) return installed;
  if (await isFolder(folder)) return folder;
  throw new UserError(`there is no folder ${folder}`, {
    code: ExitCode.notFound,
    hint: "--tasks-dir takes a checkout of lm-evaluation-harness, or a Python environment that has it.",
  });
}

/** The tasks of an lm_eval that is installed for this user; null where there is none. */
export async function installedTasks(env: Record<string, string | undefined> = process.env): Promise<string | null> {
  const programs = (environment("PATH", env) ?? "").split(delimiter).filter((path) => /[\\/]bin$/.test(path));
  const home = homeFolder();
  const prefixes = [
    environment("VIRTUAL_ENV", env),
    environment("CONDA_PREFIX", env),
    ...programs.map(dirname),
    home && join(home, ".local"),
  ];
  for (const prefix of new Set(prefixes)) {
    const [found] = prefix ? await packagesIn(prefix) : [];
    if (found) return found;
  }
  return null;
}

/** Below a prefix of Python's, of the newest version first. */
async function packagesIn(prefix: string): Promise<string[]> {
  const versions = await readdir(join(prefix, "lib")).catch(() => []);
  const found: string[] = [];
  for (const version of versions
    .filter((name) => /^python3/.test(name))
    .sort()
    .reverse()) {
    for (const packages of ["site-packages", "dist-packages"]) {
      const path = join(prefix, "lib", version, packages, "lm_eval/tasks");
      if (await isFolder(path)) found.push(path);
    }
  }
  return found;
}
