/** The models of the shared cache, with what their configurations say. */

import { snapshotFolder } from "../hub/cache-layout";
import { type CachedRepo, cachedRepos } from "../hub/cached-models";
import { hubCache } from "../hub/environment";
import { cachedSnapshot } from "../hub/snapshot-state";
import { type CheckpointFacts, describeCheckpoint } from "./describe";

export interface CachedCheckpoint extends CachedRepo, CheckpointFacts {
  /** The folder that a command would take; null where the model is not whole, or another branch than the main one. */
  snapshot: string | null;
}

const unknown: CheckpointFacts = { model_type: null, quantization: null, dtype: null, context_length: null };

/** In the order of their names. @param onProblem told of what cannot be read @throws UserError where there is no cache */
export async function cachedCheckpoints(onProblem: (problem: string) => void): Promise<CachedCheckpoint[]> {
  const { repos, problems } = await cachedRepos("");
  for (const problem of problems) onProblem(problem);
  const cache = hubCache();
  const models = repos.filter(({ type }) => type === "model");
  return Promise.all(
    models.map(async (repo) => {
      const snapshot = cachedSnapshot(cache, repo.id);
      const [any] = repo.revisions;
      const folder = snapshot ?? (any ? snapshotFolder(cache, { type: "model", name: repo.id }, any) : null);
      const facts = folder === null ? null : await describeCheckpoint(folder);
      return { ...repo, ...(facts ?? unknown), snapshot };
    }),
  );
}
