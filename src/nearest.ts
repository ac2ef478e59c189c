/** Which known words a mistyped one may have meant. */

/** Insertions, deletions and substitutions between two words (Levenshtein). */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (const [i, letter] of [...a].entries()) {
    const next = [i + 1];
    for (const [j, other] of [...b].entries()) {
      next.push(Math.min(next[j]! + 1, row[j + 1]! + 1, row[j]! + (letter === other ? 0 : 1)));
    }
    row = next;
  }
  return row.at(-1)!;
}

/** Up to `count` candidates that share most of the word, the closest first. */
export function nearest(word: string, candidates: readonly string[], count = 3): string[] {
  const needle = word.toLowerCase();
  return candidates
    .map((candidate) => ({ candidate, far: distance(needle, candidate.toLowerCase()) }))
    .filter(({ candidate, far }) => far <= Math.max(candidate.length, needle.length) / 2)
    .sort((a, b) => a.far - b.far)
    .slice(0, count)
    .map(({ candidate }) => candidate);
}
