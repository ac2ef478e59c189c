/** The settings of a command line: its flags, the YAML file that it names, and for a training that goes on its record. */
import { readAdapterConfig } from "./adapter-files";
import { readSettingsFile, resolveSettings, type Settings, unknownSettings } from "./settings";

/** `maxSeqLength` → `max_seq_length`; what is absent, or a switch that is off, counts as not given. */
function named(flags: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const given = Object.entries(flags).filter(([, value]) => value !== undefined && value !== false);
  return Object.fromEntries(
    given.map(([name, value]) => [name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`), value]),
  );
}

/** @throws UserError where a file or a value is wrong */
export async function openSettings(
  flags: Readonly<Record<string, unknown>>,
  { resume = false }: { resume?: boolean } = {},
): Promise<{ settings: Settings; warnings: string[] }> {
  const given = named(flags);
  const path = given.config as string | undefined;
  const file = path === undefined ? {} : await readSettingsFile(path);
  const warnings = unknownSettings(file).map(
    ([name, similar]) => `${path}: there is no setting ${name}${similar ? `; did you mean ${similar}?` : ""}`,
  );
  const places: Record<string, unknown>[] = [given, file];
  if (resume) {
    const folder = resolveSettings(given, file).adapter_path;
    const { resume_adapter_file: _, ...record } = await readAdapterConfig(folder);
    places.push(record, { train: true });
  }
  return { settings: resolveSettings(...places), warnings };
}
