/**
 * The header of a safetensors file, checked before MLX maps the file: MLX trusts offsets and shapes. The rules are those
 * of the format's own validator: no holes, no overlaps, no bytes beyond the last tensor.
 */
import { basename } from "node:path";
import { UserError } from "../errors";
import { inputFile } from "../input-file";
import { JsonScanner } from "../json-scanner";

export interface TensorEntry {
  dtype: string;
  shape: number[];
  /** First byte and the one behind the last, from the start of the data. */
  start: number;
  end: number;
}

export interface SafetensorsHeader {
  tensors: Map<string, TensorEntry>;
  metadata: Map<string, string>;
}

/** The format's own limit. */
const longestHeader = 100_000_000;

/** Bits of an element. */
const bits: Readonly<Record<string, number>> = {
  BOOL: 8,
  U8: 8,
  I8: 8,
  F8_E4M3: 8,
  F8_E5M2: 8,
  F8_E8M0: 8,
  U16: 16,
  I16: 16,
  F16: 16,
  BF16: 16,
  U32: 32,
  I32: 32,
  F32: 32,
  U64: 64,
  I64: 64,
  F64: 64,
  C64: 64,
};

/**
 * @param hint what a user can do about a bad file
 * @throws UserError that says what is wrong with the file, and where
 */
export async function readSafetensorsHeader(
  path: string,
  hint = `Download the model again; the file is ${path}`,
): Promise<SafetensorsHeader> {
  const file = Bun.file(path);
  const wrong = (problem: string): never => {
    throw new UserError(`${basename(path)} is not a sound safetensors file: ${problem}`, { hint });
  };
  await inputFile(path);
  const { size } = file;
  if (size < 8) wrong(`it has ${size} bytes, fewer than the 8 of the header's length`);
  const prefix = new DataView(await file.slice(0, 8).arrayBuffer());
  const length = prefix.getBigUint64(0, true);
  if (length > longestHeader) wrong(`its header claims ${length} bytes, more than the ${longestHeader} allowed`);
  if (8 + Number(length) > size)
    wrong(`its header claims ${length} bytes, but the file has only ${size}: it is cut off`);
  const bytes = await file.slice(8, 8 + Number(length)).bytes();
  return parseHeader(bytes, size - 8 - Number(length), wrong);
}

/** Checks a header against the number of data bytes that follow it. */
export function parseHeader(bytes: Uint8Array, dataSize: number, wrong: (problem: string) => never): SafetensorsHeader {
  if (bytes[0] !== 0x7b) wrong("its header does not begin with {");
  let text = "";
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    wrong("its header is not UTF-8");
  }
  let entries: [string, unknown][] = [];
  try {
    entries = new JsonScanner(text).object();
  } catch (error) {
    wrong(`its header is not JSON: ${(error as Error).message}`);
  }

  const header: SafetensorsHeader = { tensors: new Map(), metadata: new Map() };
  for (const [name, value] of entries) {
    if (name === "__metadata__") header.metadata = metadataOf(value, wrong);
    else header.tensors.set(name, entryOf(name, value, wrong));
  }
  checkLayout(header.tensors, dataSize, wrong);
  return header;
}

function metadataOf(value: unknown, wrong: (problem: string) => never): Map<string, string> {
  // MLX itself writes null where there is no metadata.
  if (value === null) return new Map();
  if (!(value instanceof Map)) return wrong("its metadata is not an object");
  for (const [key, text] of value) if (typeof text !== "string") wrong(`its metadata "${key}" is not a text`);
  return value as Map<string, string>;
}

function entryOf(name: string, value: unknown, wrong: (problem: string) => never): TensorEntry {
  if (name.includes("\0")) wrong("a tensor's name holds a NUL character");
  if (!(value instanceof Map)) return wrong(`tensor "${name}" is not described by an object`);
  const dtype = value.get("dtype");
  if (typeof dtype !== "string" || !Object.hasOwn(bits, dtype))
    wrong(`tensor "${name}" has the unknown dtype ${JSON.stringify(dtype)}`);
  const shape = wholeNumbers(value.get("shape")) ?? wrong(`tensor "${name}" has no proper shape`);
  const offsets = wholeNumbers(value.get("data_offsets"));
  if (offsets?.length !== 2) return wrong(`tensor "${name}" has no proper data_offsets`);
  const [start, end] = offsets as [number, number];
  if (start > end) wrong(`tensor "${name}" ends (${end}) before it starts (${start})`);

  const size = shape.reduce((product, dim) => product * dim, 1);
  const expected = (size * bits[dtype as string]!) / 8;
  if (!Number.isSafeInteger(expected) || shape.some((dim) => dim > 0x7fffffff)) {
    wrong(`tensor "${name}" has a shape too large to exist: (${shape.join(", ")})`);
  }
  if (expected !== end - start) {
    wrong(`tensor "${name}" takes ${end - start} bytes, but ${dtype} (${shape.join(", ")}) needs ${expected}`);
  }
  return { dtype: dtype as string, shape, start, end };
}

function wholeNumbers(value: unknown): number[] | null {
  const sound = Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0);
  return sound ? (value as number[]) : null;
}

function checkLayout(
  tensors: ReadonlyMap<string, TensorEntry>,
  dataSize: number,
  wrong: (problem: string) => never,
): void {
  const inOrder = [...tensors].sort(([, a], [, b]) => a.start - b.start || a.end - b.end);
  let at = 0;
  for (const [name, { start, end }] of inOrder) {
    if (start < at) wrong(`tensor "${name}" overlaps the one before it`);
    if (start > at) wrong(`there is a hole of ${start - at} bytes before tensor "${name}"`);
    at = end;
  }
  if (at > dataSize) wrong(`its tensors need ${at} bytes, but only ${dataSize} follow the header: it is cut off`);
  if (at < dataSize) wrong(`${dataSize - at} bytes follow its last tensor`);
}
