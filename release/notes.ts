/** The notes of a release: its part of CHANGELOG.md. */

/**
 * The text below the heading of a version, up to the next version's.
 * @throws Error where the changelog has no such heading
 */
export function notesOf(changelog: string, version: string): string {
  const lines = changelog.split("\n");
  const isVersion = (line: string) => /^## \d/.test(line);
  const first = lines.findIndex((line) => isVersion(line) && line.slice(3).split(/\s/)[0] === version);
  if (first < 0) throw new Error(`CHANGELOG.md has no part for ${version}`);
  const end = lines.findIndex((line, i) => i > first && isVersion(line));
  return `${lines
    .slice(first + 1, end < 0 ? undefined : end)
    .join("\n")
    .trim()}\n`;
}
