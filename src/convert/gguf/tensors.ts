/** The tensors of a GGUF file, in MLX's forms. */
import { closeSync, openSync, readSync } from "node:fs";
import { basename } from "node:path";
import { UserError } from "../../errors";
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import type { Unpacked } from "./blocks";
import type { GgufTensor } from "./header";

/** Most bytes of one read: a system call takes no more than 2 GB. */
const longestRead = 2 ** 30;

/** How many numbers are unpacked at a time. */
const pieceSize = 2 ** 24;

/** Pieces (rows, K) as one tensor (…, K). */
function joined(pieces: readonly Unpacked[], lead: readonly number[]): Unpacked {
  const parts = Object.keys(pieces[0]!) as (keyof Unpacked)[];
  const whole = parts.map((part): [keyof Unpacked, Tensor] => {
    const all = pieces.map((piece) => piece[part]!);
    const rows = all.length === 1 ? all[0]! : mx.concatenate(all, { axis: 0 });
    return [part, rows.reshape(...lead, rows.dim(-1))];
  });
  return Object.fromEntries(whole) as unknown as Unpacked;
}

/** A tensor of blocks where it lies in its file: (…, bytes of a row) uint8. */
export function mapBlocks({ path, type, shape, start }: GgufTensor): Tensor {
  return mx.mapFile(path, start, [...shape.slice(0, -1), (shape.at(-1)! / type.block) * type.bytes]);
}

/** Files that stay open for reading their tensors one after the other. */
export class GgufData {
  readonly #files = new Map<string, number>();

  /** Reads and evaluates a tensor, so that its bytes are let go; what is unpacked, in pieces. */
  read({ path, type, shape, start }: GgufTensor): Unpacked {
    const width = shape.at(-1)!;
    const rows = shape.slice(0, -1).reduce((product, dim) => product * dim, 1);
    const most = type.block === 1 ? rows : Math.max(1, Math.floor(pieceSize / width));
    const rowBytes = (width / type.block) * type.bytes;
    return mx.scope(() => {
      const pieces: Unpacked[] = [];
      for (let first = 0; first < rows; first += most) {
        const count = Math.min(most, rows - first);
        const bytes = this.bytes(path, start + first * rowBytes, count * rowBytes);
        pieces.push(
          mx.scope(() => {
            const unpacked = type.unpack(mx.array(bytes, "uint8", [count, width / type.block, type.bytes]));
            mx.eval({ ...unpacked });
            return unpacked;
          }),
        );
      }
      const whole = joined(pieces, shape.slice(0, -1));
      mx.eval({ ...whole });
      return whole;
    });
  }

  /** The same without packing. */
  readPlain(tensor: GgufTensor): Tensor {
    return mx.scope(() => {
      const { weight, scales, biases } = this.read(tensor);
      const { affine } = tensor.type;
      if (!affine || !scales) return weight;
      const plain = mx.dequantize(weight, scales, biases, affine);
      mx.eval(plain);
      return plain;
    });
  }

  private bytes(path: string, start: number, length: number): Uint8Array {
    const file = this.#files.get(path) ?? openSync(path, "r");
    this.#files.set(path, file);
    const data = new Uint8Array(length);
    for (let done = 0; done < length; ) {
      const read = readSync(file, data, done, Math.min(length - done, longestRead), start + done);
      if (read === 0) {
        throw new UserError(`${basename(path)} ends at byte ${start + done}: it became shorter while it was read`, {
          hint: "Try again when nothing writes to the file.",
        });
      }
      done += read;
    }
    return data;
  }

  close(): void {
    for (const file of this.#files.values()) closeSync(file);
  }
}
