/** The third parties' licences, as one text. */
import type { Component } from "./components";

const line = "=".repeat(80);

/** One chapter a component; what several say alike is printed once, under all their names. */
export function licencesText(components: readonly Component[]): string {
  const byText = Map.groupBy(components, ({ license, text }) => `${license}\n${text}`);
  const chapters = [...byText.values()].map((group) => {
    const names = group.map(({ name, version, url }) => `${name} ${version}\n  ${url}`);
    return `${line}\n${names.join("\n")}\n\nLicence: ${group[0]!.license}\n\n${group[0]!.text}\n`;
  });
  return `mlxlm is under the MIT licence. It contains the following works of others.\n\n${chapters.join("\n")}`;
}
