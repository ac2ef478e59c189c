/** Writing GGUF files, version 3: the header first, then one tensor after the other. */
import { type FileHandle, open } from "node:fs/promises";
import { replaceFile } from "../../atomic-file";
import { ExitCode, UserError } from "../../errors";
import { breathe } from "../../macrotask";
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import type { GgufField } from "../../models";
import { type WrittenType, writtenType } from "./types";

/** Codes of the types that metadata have here. */
const fieldTypes: Readonly<Record<GgufField[0], number>> = {
  ...{ uint32: 4, int32: 5, float32: 6, bool: 7, string: 8, uint64: 10 },
};
const arrayType = 9;

/** A tensor (…, K) and the type that it is written in; K must be a multiple of 32 for Q8_0. */
export interface WrittenTensor {
  tensor: Tensor;
  type: WrittenType;
}

export interface WriteOptions {
  onProgress?: (done: number, total: number) => void;
  signal?: AbortSignal;
}

/** What llama.cpp aligns to unless a file says otherwise. */
const alignment = 32;

/** A tensor is turned into bytes in pieces of about so many numbers; of types with a search, in smaller ones. */
const pieceSize = 2 ** 25;
const searchSize = 2 ** 22;

/**
 * Writes the file whole or not at all, and frees the tensors, which must be `keep`-t: each is made, written and let go,
 * so that lazy ones take the memory of the largest.
 * @throws UserError where the file cannot be written, or the signal ends the work
 */
export async function writeGguf(
  path: string,
  metadata: ReadonlyMap<string, GgufField>,
  tensors: ReadonlyMap<string, WrittenTensor>,
  { onProgress, signal }: WriteOptions = {},
): Promise<void> {
  const left = new Set([...tensors.values()].map(({ tensor }) => tensor));
  try {
    const { header, total } = layOut(metadata, tensors);
    await replaceFile(path, async (temporary) => {
      const file = await open(temporary, "w");
      try {
        await writeAll(file, header);
        let done = header.length;
        for (const { tensor, type } of tensors.values()) {
          for (const piece of piecesOf(tensor, type)) {
            await writeAll(file, piece);
            done += piece.length;
            onProgress?.(done, total);
            await breathe();
            if (signal?.aborted) throw new UserError(`stopped: ${path} was not saved`, { code: ExitCode.interrupted });
          }
          await writeAll(file, new Uint8Array(padding(done)));
          done += padding(done);
          left.delete(tensor);
          mx.release(tensor);
          mx.clearCache();
        }
      } finally {
        await file.close();
      }
    });
  } finally {
    for (const tensor of left) mx.release(tensor);
  }
}

async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length; ) done += (await file.write(bytes, done)).bytesWritten;
}

const padding = (length: number) => -length & (alignment - 1);

/** The header, padded, and how long the file becomes. */
function layOut(
  metadata: ReadonlyMap<string, GgufField>,
  tensors: ReadonlyMap<string, WrittenTensor>,
): { header: Uint8Array; total: number } {
  const writer = new Writer();
  writer.raw(new TextEncoder().encode("GGUF"));
  writer.u32(3);
  writer.u64(tensors.size);
  writer.u64(metadata.size);
  for (const [key, [type, value]] of metadata) {
    writer.text(key);
    if (Array.isArray(value)) {
      writer.u32(arrayType);
      writer.u32(fieldTypes[type]);
      writer.u64(value.length);
      for (const entry of value) writer.scalar(type, entry);
    } else {
      writer.u32(fieldTypes[type]);
      writer.scalar(type, value as number | bigint | boolean | string);
    }
  }
  let offset = 0;
  for (const [name, { tensor, type }] of tensors) {
    const { code, block, bytes } = writtenType(type);
    if (tensor.dim(-1) % block !== 0) throw new RangeError(`${name} cannot be ${type}: (${tensor.shape.join(", ")})`);
    writer.text(name);
    writer.u32(tensor.ndim);
    for (const dim of tensor.shape.toReversed()) writer.u64(dim);
    writer.u32(code);
    writer.u64(offset);
    const length = (tensor.size / block) * bytes;
    offset += length + padding(length);
  }
  const header = writer.padded();
  return { header, total: header.length + offset };
}

/** Little-endian bytes of a header. */
class Writer {
  private bytes = new Uint8Array(2 ** 16);
  private view = new DataView(this.bytes.buffer);
  private at = 0;
  private readonly encoder = new TextEncoder();

  /** Makes room for `length` more bytes and returns where they go. */
  private take(length: number): number {
    const start = this.at;
    this.at += length;
    if (this.at > this.bytes.length) {
      const grown = new Uint8Array(2 * this.at);
      grown.set(this.bytes);
      this.bytes = grown;
      this.view = new DataView(grown.buffer);
    }
    return start;
  }

  raw(bytes: Uint8Array): void {
    const start = this.take(bytes.length);
    this.bytes.set(bytes, start);
  }

  u32(value: number): void {
    const start = this.take(4);
    this.view.setUint32(start, value, true);
  }

  u64(value: number | bigint): void {
    const start = this.take(8);
    this.view.setBigUint64(start, BigInt(value), true);
  }

  text(value: string): void {
    const bytes = this.encoder.encode(value);
    this.u64(bytes.length);
    this.raw(bytes);
  }

  scalar(type: GgufField[0], value: number | bigint | boolean | string): void {
    if (type === "string") {
      this.text(String(value));
    } else if (type === "bool") {
      this.raw(Uint8Array.of(value ? 1 : 0));
    } else if (type === "uint64") {
      this.u64(value as number | bigint);
    } else {
      const start = this.take(4);
      if (type === "uint32") this.view.setUint32(start, Number(value), true);
      else if (type === "int32") this.view.setInt32(start, Number(value), true);
      else this.view.setFloat32(start, Number(value), true);
    }
  }

  padded(): Uint8Array {
    this.take(padding(this.at));
    return this.bytes.subarray(0, this.at);
  }
}

/** The bytes of a tensor, some rows at a time. */
function* piecesOf(tensor: Tensor, type: WrittenType): Generator<Uint8Array> {
  mx.eval(tensor);
  const width = tensor.dim(-1);
  const count = tensor.size / width;
  const rows = Math.max(1, Math.floor((writtenType(type).block > 32 ? searchSize : pieceSize) / width));
  for (let row = 0; row < count; row += rows) {
    yield mx.scope(() => {
      const part = tensor.reshape(count, width).at(mx.slice(row, Math.min(row + rows, count)));
      return mx.contiguous(writtenType(type).pack(part)).toArray() as Uint8Array;
    });
  }
}
