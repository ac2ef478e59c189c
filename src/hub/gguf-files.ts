/** Which GGUF file of several is meant: by a quantization's name, or by its own. */
import { ExitCode, UserError } from "../errors";

/** What is taken where nothing is said, as llama.cpp does. */
const usual = "Q4_K_M";

const isGguf = (name: string) => /\.gguf$/i.test(name);

/** Parts for images and sound are files of their own. */
const isCompanion = (name: string) => /(^|\/)mmproj/i.test(name);

const partOf = /-(\d{5})-of-\d{5}\.gguf$/i;

const stem = (name: string) => name.replace(partOf, ".gguf");

const escaped = (text: string) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");

/**
 * The file, or all its parts, the first one first.
 * @param which a quantization, such as Q4_K_M, or the name of a file; the usual one where it is not said
 * @param place what errors call where they are
 * @throws UserError where there is none, or more than one
 */
export function chosenGguf(files: readonly string[], which: string | undefined, place: string): string[] {
  const all = files.filter((name) => isGguf(name) && !isCompanion(name)).sort();
  const wholes = [...new Set(all.map(stem))];
  const refuse = (problem: string): never => {
    throw new UserError(problem, {
      code: ExitCode.notFound,
      hint: wholes.length > 0 ? `There are ${wholes.join(", ")}` : "Take another model.",
    });
  };
  if (wholes.length === 0) refuse(`${place} has no GGUF file`);
  const named = (word: string) => {
    const own = wholes.filter((name) => name === word || name.endsWith(`/${word}`));
    if (own.length > 0 || isGguf(word)) return own;
    const pattern = new RegExp(`(^|[-._/])${escaped(word)}([-./]|$)`, "i");
    return wholes.filter((name) => pattern.test(name));
  };
  const found = which === undefined ? (wholes.length === 1 ? wholes : named(usual)) : named(which);
  if (found.length === 0) {
    refuse(which === undefined ? `${place} has several GGUF files, none of them ${usual}` : `${place} has no ${which}`);
  }
  if (found.length > 1) refuse(`${place} has ${found.length} GGUF files for ${which ?? usual}`);
  return all.filter((name) => stem(name) === found[0]);
}
