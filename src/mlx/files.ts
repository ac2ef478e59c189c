/** Tensors in files: safetensors, GGUF, npy. Loading is lazy: bytes are read when a tensor is evaluated. */
import { MlxError } from "./error";
import { native } from "./library";
import { beginMail, cFields, cString, numberMail, writeInts } from "./mailbox";
import { checked, readFields, readHandles } from "./native";
import { handlesOf, wrap, wrapAll } from "./operand";
import type { Tensor } from "./tensor";

export interface Safetensors {
  arrays: Map<string, Tensor>;
  metadata: Record<string, string>;
}

/**
 * Opens a safetensors file. MLX trusts the header: files from outside are to be validated first (safetensors-header.ts).
 * @throws MlxError where the file cannot be opened or its header is not understood
 */
export function loadSafetensors(path: string): Safetensors {
  const tensors = wrapAll(readHandles(native.mlxlm_load_safetensors(cString(path))));
  const words = readFields(numberMail[0]!);
  const arrays = new Map(tensors.map((tensor, i) => [words[i]!, tensor]));
  const metadata: Record<string, string> = Object.create(null);
  for (let i = tensors.length; i + 1 < words.length; i += 2) metadata[words[i]!] = words[i + 1]!;
  return { arrays, metadata };
}

/** Writes (and evaluates) the tensors. Not atomic: write beside the target and rename. */
export function saveSafetensors(
  path: string,
  arrays: ReadonlyMap<string, Tensor>,
  metadata: Readonly<Record<string, string>> = {},
): void {
  const names = cFields([...arrays.keys()]);
  const facts = cFields(Object.entries(metadata).flat());
  beginMail();
  writeInts(handlesOf([...arrays.values()]));
  checked(native.mlxlm_save_safetensors(cString(path), names.bytes, names.length, facts.bytes, facts.length));
}

export type GgufValue = string | string[] | Tensor;

export interface Gguf {
  arrays: Map<string, Tensor>;
  metadata: Map<string, GgufValue>;
}

export function loadGguf(path: string): Gguf {
  const tensors = wrapAll(readHandles(native.mlxlm_load_gguf(cString(path)))).values();
  const words = readFields(numberMail[0]!).values();
  const next = () => words.next().value as string;
  const nextTensor = () => tensors.next().value as Tensor;

  const arrays = new Map<string, Tensor>();
  for (let left = Number(next()); left > 0; left--) arrays.set(next(), nextTensor());
  const metadata = new Map<string, GgufValue>();
  for (const key of words) {
    const kind = next();
    if (kind === "s") metadata.set(key, next());
    else if (kind === "l") metadata.set(key, Array.from({ length: Number(next()) }, next));
    else metadata.set(key, nextTensor());
  }
  return { arrays, metadata };
}

export function saveGguf(
  path: string,
  arrays: ReadonlyMap<string, Tensor>,
  metadata: ReadonlyMap<string, GgufValue> = new Map(),
): void {
  const words = [`${arrays.size}`, ...arrays.keys()];
  const tensors = [...arrays.values()];
  for (const [key, value] of metadata) {
    if (typeof value === "string") words.push(key, "s", value);
    else if (Array.isArray(value)) words.push(key, "l", `${value.length}`, ...value);
    else {
      words.push(key, "a");
      tensors.push(value);
    }
  }
  const text = cFields(words);
  beginMail();
  const count = writeInts(handlesOf(tensors));
  checked(native.mlxlm_save_gguf(cString(path), text.bytes, text.length, count));
}

/**
 * Bytes of a file from `start` on, uint8 of a shape, where they lie: pages are read when they are needed. Where the file
 * became shorter, or its disk fails, evaluating and reading any tensor throws a UserError while the mapping lasts.
 * @throws MlxError where the file cannot be opened, or ends before
 */
export function mapFile(path: string, start: number, shape: readonly number[]): Tensor {
  beginMail();
  return wrap(checked(native.mlxlm_map_file(cString(path), start, writeInts(shape))));
}

export function loadNpy(path: string): Tensor {
  return wrap(checked(native.mlxlm_load_npy(cString(path))));
}

export function saveNpy(path: string, x: Tensor): void {
  checked(native.mlxlm_save_npy(cString(path), x.handle));
}

/** Named tensors of a file, by its extension. @throws MlxError for an extension that MLX has no reader for */
export function load(path: string): Map<string, Tensor> | Tensor {
  if (path.endsWith(".safetensors")) return loadSafetensors(path).arrays;
  if (path.endsWith(".gguf")) return loadGguf(path).arrays;
  if (path.endsWith(".npy")) return loadNpy(path);
  throw new MlxError(`${path}: expected a .safetensors, .gguf or .npy file`);
}
