/** GGUF files in parts, as gguf-split cuts them: `name-00001-of-00003.gguf`, the metadata in the first. */
import { stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { ExitCode, UserError } from "../../errors";
import { type GgufHeader, readGgufHeader } from "./header";

/** More parts than any model has. */
const mostParts = 1000;

const partName = /^(.*)-(\d{5})-of-(\d{5})\.gguf$/i;

/** The name of a part, given that of another. @param index from 0 */
function nameOf(name: string, index: number): string | null {
  const found = partName.exec(name);
  return found && `${found[1]}-${String(index + 1).padStart(5, "0")}-of-${found[3]}.gguf`;
}

/** Of files that are parts of one, the first; all others as they are. */
export function wholes(names: readonly string[]): string[] {
  return names.filter((name) => nameOf(name, 0) === null || nameOf(name, 0)!.toLowerCase() === name.toLowerCase());
}

/**
 * The header of a file, with the tensors of its other parts where it is the first of several.
 * @throws UserError for a part that is missing, another than the first, or not of the same whole
 */
export async function readGgufParts(path: string): Promise<GgufHeader> {
  const header = await readGgufHeader(path);
  const count = numberIn(header, "split.count") ?? 1;
  if (count <= 1) return header;
  const name = basename(path);
  const wrong = (problem: string, hint: string): never => {
    throw new UserError(problem, { code: ExitCode.notFound, hint });
  };
  const index = numberIn(header, "split.no") ?? 0;
  if (index !== 0) {
    const first = nameOf(name, 0);
    wrong(
      `${name} is part ${index + 1} of ${count} of a model`,
      `Name the first part${first ? `: ${join(dirname(path), first)}` : ""}.`,
    );
  }
  if (!Number.isInteger(count) || count > mostParts) wrong(`${name} says that it is one of ${count} parts`, again);
  if (Number(partName.exec(name)?.[3]) !== count) {
    wrong(
      `${name} is part 1 of ${count} of a model, and its name does not say so`,
      `Give the parts the names that they had: name-00001-of-${String(count).padStart(5, "0")}.gguf`,
    );
  }
  const tensors = new Map(header.tensors);
  for (let part = 1; part < count; part++) {
    const other = nameOf(name, part)!;
    const place = join(dirname(path), other);
    if (!(await stat(place).catch(() => null))?.isFile()) {
      wrong(
        `${name} is part 1 of ${count}, and part ${part + 1} is missing: ${other}`,
        "Put all parts into one folder.",
      );
    }
    const own = await readGgufHeader(place);
    if (numberIn(own, "split.no") !== part || numberIn(own, "split.count") !== count) {
      wrong(`${other} says that it is not part ${part + 1} of ${count}`, again);
    }
    for (const [tensor, facts] of own.tensors) {
      if (tensors.has(tensor)) wrong(`the tensor "${tensor}" is in two parts, one of them ${other}`, again);
      tensors.set(tensor, facts);
    }
  }
  const expected = numberIn(header, "split.tensors.count");
  if (expected !== undefined && expected !== tensors.size) {
    wrong(`the ${count} parts of ${name} have ${tensors.size} tensors, not ${expected} as they say`, again);
  }
  return { metadata: header.metadata, tensors };
}

const again = "Download all parts again.";

function numberIn({ metadata }: GgufHeader, key: string): number | undefined {
  const value = metadata.get(key);
  return typeof value === "number" ? value : undefined;
}
