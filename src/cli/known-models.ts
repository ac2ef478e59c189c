/** The names of models that need no download. */

/** The demo, and the models in the cache. */
export async function knownModels(): Promise<string[]> {
  const { cachedRepos } = await import("../hub/cached-models");
  const { repos } = await cachedRepos("").catch(() => ({ repos: [] }));
  return ["demo", ...repos.filter(({ type }) => type === "model").map(({ id }) => id)];
}
