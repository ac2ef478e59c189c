/** `mlxlm manage`: what is in the Hugging Face cache, and removing it. */
import { command } from "../src/cli/command";
import type { Output } from "../src/cli/output";
import { ExitCode, UserError } from "../src/errors";
import type { CachedRepo } from "../src/hub/cached-models";
import { manageFlags } from "./manage.flags";

export default command({
  name: "manage",
  summary: "List or delete models in the Hugging Face cache",
  examples: ["mlxlm manage --scan", 'mlxlm manage --scan --pattern ""', "mlxlm manage --delete --pattern Qwen3-0.6B"],
  flags: manageFlags,

  async run({ flags, out }) {
    if (!flags.scan && !flags.delete) {
      throw new UserError("manage needs to know what to do", { code: ExitCode.usage, hint: "--scan or --delete" });
    }
    const { cachedRepos } = await import("../src/hub/cached-models");
    const { repos, problems } = await cachedRepos(flags.pattern);
    for (const problem of problems) out.warn(problem);
    let deleted = 0;
    if (flags.scan) await list(repos, flags.pattern, out);
    if (flags.delete) deleted = await remove(repos, flags.pattern, flags.yes, out);
    out.result({ repos: repos.map(({ id, type, size, files, path }) => ({ id, type, size, files, path })), deleted });
  },
});

async function list(repos: readonly CachedRepo[], pattern: string, out: Output): Promise<void> {
  const { sizeInWords, table, timeInWords } = await import("../src/cli/table");
  out.text(`Scanning Hugging Face cache for models with pattern "${pattern}".\n`);
  const rows = repos.map(({ id, type, size, files, accessed, modified, path }) => [
    id,
    type,
    sizeInWords(size).padStart(12),
    files,
    timeInWords(accessed),
    timeInWords(modified),
    path,
  ]);
  const headings = ["REPO ID", "REPO TYPE", "SIZE ON DISK", "NB FILES", "LAST_ACCESSED", "LAST_MODIFIED", "LOCAL PATH"];
  out.text(`${table(headings, rows)}\n`);
}

/** How many repos were deleted. */
async function remove(repos: readonly CachedRepo[], pattern: string, sure: boolean, out: Output): Promise<number> {
  const { confirmed } = await import("../src/cli/confirm");
  const { sizeInWords, table } = await import("../src/cli/table");
  const { removeRepo } = await import("../src/hub/cached-models");
  out.text(`Deleting models matching pattern "${pattern}"\n`);
  if (repos.length === 0) {
    out.text(`No models found matching pattern "${pattern}"\n`);
    return 0;
  }
  out.text("\nFound the following models:\n");
  const rows = repos.map(({ id, size, path }) => [id, sizeInWords(size), path]);
  out.text(`${table(["REPO ID", "SIZE", "LOCAL PATH"], rows)}\n`);
  if (!sure && !(await confirmed("\nAre you sure you want to delete these models?", out))) {
    out.text("\nDeletion cancelled - no changes made.\n");
    return 0;
  }
  for (const repo of repos) {
    out.text(`\nDeleting ${repo.id}...\n`);
    await removeRepo(repo);
  }
  out.text("\nModel(s) deleted successfully.\n");
  return repos.length;
}
