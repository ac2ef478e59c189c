/**
 * The header of a GGUF file, versions 2 and 3. Every count, length and offset is held against the bytes that there are
 * before anything is made of it, and tensors must lie inside the file, aligned and apart.
 */
import { open } from "node:fs/promises";
import { basename } from "node:path";
import { ExitCode, UserError } from "../../errors";
import { inputFile } from "../../input-file";
import { type ElementType, elementType, elementTypeName, readableNames } from "./types";

/** A number beyond 2^53 is a bigint. */
export type GgufValue = number | bigint | boolean | string | GgufValue[];

export interface GgufTensor {
  /** The file that it is in. */
  path: string;
  type: ElementType;
  /** Row-major: the file has them the other way round. */
  shape: number[];
  /** First byte, from the start of the file, and how many there are. */
  start: number;
  bytes: number;
}

export interface GgufHeader {
  metadata: Map<string, GgufValue>;
  tensors: Map<string, GgufTensor>;
}

/** Larger than any real header: a vocabulary takes 20 MB at most. */
const longestHeader = 256 * 2 ** 20;

const firstRead = 2 ** 20;

/** The part of the header that was read ends here, the file does not. */
class NeedsMore extends Error {}

/**
 * Reads the header of a file.
 * @throws UserError that says what is wrong with it, and where
 */
export async function readGgufHeader(path: string): Promise<GgufHeader> {
  await inputFile(path);
  const file = await open(path).catch((cause: Error) => {
    throw new UserError(`${path} cannot be opened: ${cause.message}`, {
      code: ExitCode.notFound,
      hint: "Check the path.",
      cause,
    });
  });
  try {
    const { size } = await file.stat();
    for (let length = Math.min(size, firstRead); ; length = Math.min(size, length * 4)) {
      const bytes = new Uint8Array(length);
      const { bytesRead } = await file.read(bytes, 0, length, 0);
      try {
        return parseGgufHeader(bytes.subarray(0, bytesRead), size, path);
      } catch (error) {
        if (!(error instanceof NeedsMore)) throw error;
        if (bytesRead < length || length > longestHeader) throw unsound(path, "its header does not end");
      }
    }
  } finally {
    await file.close();
  }
}

const unsound = (path: string, problem: string) =>
  new UserError(`${basename(path)} is not a sound GGUF file: ${problem}`, {
    hint: `Download the model again; the file is ${path}`,
  });

/** The header in the first bytes of a file of `size` bytes. */
export function parseGgufHeader(bytes: Uint8Array, size: number, path: string): GgufHeader {
  const reader = new Reader(bytes, size, (problem) => {
    throw unsound(path, problem);
  });
  const magic = reader.take(4, "its first four bytes");
  if (String.fromCharCode(...bytes.subarray(magic, magic + 4)) !== "GGUF")
    reader.wrong('it does not begin with "GGUF"');
  const version = reader.u32("its version");
  if (version !== 2 && version !== 3) reader.wrong(`it has version ${version}; mlxlm reads 2 and 3, little-endian`);
  const tensorCount = reader.count("tensors", smallest.tensor);
  const pairCount = reader.count("metadata entries", smallest.pair);

  const metadata = new Map<string, GgufValue>();
  for (let i = 0; i < pairCount; i++) {
    const key = reader.text(`key ${i}`);
    if (metadata.has(key)) reader.wrong(`the metadata "${key}" occurs twice`);
    metadata.set(key, reader.value(reader.u32(`the type of "${key}"`), `"${key}"`));
  }
  const described = Array.from({ length: tensorCount }, (_, i) => reader.tensor(i));
  return { metadata, tensors: layOut(described, reader, alignmentOf(metadata, reader), path) };
}

/** Bytes that the smallest tensor description and metadata entry take. */
const smallest = { tensor: 32, pair: 13 };

function alignmentOf(metadata: ReadonlyMap<string, GgufValue>, reader: Reader): number {
  const alignment = metadata.get("general.alignment") ?? 32;
  const sound =
    typeof alignment === "number" && alignment >= 1 && alignment <= 2 ** 20 && Number.isInteger(Math.log2(alignment));
  return sound ? alignment : reader.wrong(`its alignment is ${alignment}, no power of two`);
}

interface Described {
  name: string;
  type: ElementType;
  shape: number[];
  /** From the start of the data. */
  offset: number;
}

function layOut(
  described: readonly Described[],
  reader: Reader,
  alignment: number,
  path: string,
): Map<string, GgufTensor> {
  const { size, wrong } = reader;
  const dataStart = Math.ceil(reader.at / alignment) * alignment;
  const tensors = new Map<string, GgufTensor>();
  for (const { name, type, shape, offset } of described) {
    if (tensors.has(name)) wrong(`the tensor "${name}" occurs twice`);
    const count = shape.reduce((product, dim) => product * dim, 1);
    const bytes = (count / type.block) * type.bytes;
    if (!Number.isSafeInteger(count) || !Number.isSafeInteger(bytes)) {
      wrong(`tensor "${name}" has a shape too large to exist: (${shape.join(", ")})`);
    }
    if (offset % alignment !== 0) wrong(`tensor "${name}" starts at ${offset}, no multiple of ${alignment}`);
    const start = dataStart + offset;
    if (start + bytes > size) {
      wrong(`tensor "${name}" ends at byte ${start + bytes}, but the file has only ${size}: it is cut off`);
    }
    tensors.set(name, { path, type, shape, start, bytes });
  }
  const inOrder = [...tensors].sort(([, a], [, b]) => a.start - b.start);
  inOrder.reduce((end, [name, { start, bytes }]) => {
    if (start < end) wrong(`tensor "${name}" overlaps the one before it`);
    return start + bytes;
  }, 0);
  return tensors;
}

/** Smallest number of bytes of a value, by its type's code: three integer widths twice, float, bool, string, array, … */
const valueBytes = [1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8];
const [stringType, arrayType] = [8, 9];

/** Lists of lists occur, deeper ones do not. */
const deepest = 4;

/** More entries than any vocabulary has. */
const most = { dims: 4, dim: 2 ** 31 - 1, entries: 2 ** 24 };

class Reader {
  at = 0;
  private readonly view: DataView;
  private readonly decoder = new TextDecoder();

  constructor(
    private readonly bytes: Uint8Array,
    readonly size: number,
    readonly wrong: (problem: string) => never,
  ) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Where the next `length` bytes start; they are passed. */
  take(length: number, what: string): number {
    const start = this.at;
    if (start + length > this.size) this.wrong(`it ends within ${what}, at byte ${this.size}: it is cut off`);
    if (start + length > this.bytes.length) throw new NeedsMore();
    this.at += length;
    return start;
  }

  u32(what: string): number {
    return this.view.getUint32(this.take(4, what), true);
  }

  private u64(what: string): number {
    const value = this.view.getBigUint64(this.take(8, what), true);
    return value <= Number.MAX_SAFE_INTEGER ? Number(value) : this.wrong(`${what} is ${value}, beyond any file`);
  }

  /** A number of things that take so many bytes each at least. */
  count(what: string, bytesOfEach: number): number {
    const count = this.u64(`the number of ${what}`);
    if (count * bytesOfEach > this.size - this.at)
      this.wrong(`it claims ${count} ${what}, more than fit into the file`);
    return count;
  }

  text(what: string): string {
    const length = this.count(`bytes of ${what}`, 1);
    const start = this.take(length, what);
    return this.decoder.decode(this.bytes.subarray(start, start + length));
  }

  value(type: number, what: string, depth = 0): GgufValue {
    if (type === stringType) return this.text(what);
    if (type === arrayType) return this.list(what, depth);
    if (type >= valueBytes.length) return this.wrong(`${what} has the unknown type ${type}`);
    return this.scalar(type, this.take(valueBytes[type]!, what));
  }

  private scalar(type: number, at: number): GgufValue {
    const { view } = this;
    switch (type) {
      case 0:
        return view.getUint8(at);
      case 1:
        return view.getInt8(at);
      case 2:
        return view.getUint16(at, true);
      case 3:
        return view.getInt16(at, true);
      case 4:
        return view.getUint32(at, true);
      case 5:
        return view.getInt32(at, true);
      case 6:
        return view.getFloat32(at, true);
      case 7:
        return view.getUint8(at) !== 0;
      case 10:
        return plain(view.getBigUint64(at, true));
      case 11:
        return plain(view.getBigInt64(at, true));
      default:
        return view.getFloat64(at, true);
    }
  }

  private list(what: string, depth: number): GgufValue[] {
    if (depth === deepest) this.wrong(`${what} nests deeper than ${deepest} levels`);
    const type = this.u32(`the type of ${what}`);
    if (type >= valueBytes.length) this.wrong(`${what} has entries of the unknown type ${type}`);
    const length = this.count(`entries of ${what}`, valueBytes[type]!);
    if (length > most.entries) this.wrong(`${what} has ${length} entries, more than the ${most.entries} allowed`);
    const list: GgufValue[] = [];
    for (let i = 0; i < length; i++) list.push(this.value(type, what, depth + 1));
    return list;
  }

  tensor(index: number): Described {
    const name = this.text(`the name of tensor ${index}`);
    if (name === "" || name.includes("\0")) this.wrong(`tensor ${index} has no proper name`);
    const what = `tensor "${name}"`;
    const dims = this.u32(`the dimensions of ${what}`);
    if (dims < 1 || dims > most.dims) this.wrong(`${what} has ${dims} dimensions`);
    const shape = Array.from({ length: dims }, () => this.u64(`a dimension of ${what}`)).reverse();
    if (shape.some((dim) => dim < 1 || dim > most.dim)) this.wrong(`${what} has the shape (${shape.join(", ")})`);
    const code = this.u32(`the type of ${what}`);
    const type = elementType(code) ?? refuseType(name, code);
    if (shape.at(-1)! % type.block !== 0) {
      this.wrong(`${what} is ${type.name} with rows of ${shape.at(-1)}, no multiple of ${type.block}`);
    }
    return { name, type, shape, offset: this.u64(`the offset of ${what}`) };
  }
}

const plain = (value: bigint) => (BigInt.asIntN(54, value) === value ? Number(value) : value);

function refuseType(name: string, code: number): never {
  throw new UserError(`the tensor "${name}" is ${elementTypeName(code)}; mlxlm reads ${readableNames.join(", ")}`, {
    code: ExitCode.notFound,
    hint: "Take a GGUF file in one of these types, or the model's safetensors.",
  });
}
