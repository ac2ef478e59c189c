/** The tensors of a GGUF file, in MLX's forms. */
import { closeSync, openSync, readSync } from "node:fs";
import { basename } from "node:path";
import { UserError } from "../../errors";
import type { Tensor } from "../../mlx";
import * as mx from "../../mlx";
import type { GgufTensor } from "./header";
import type { Unpacked } from "./types";

/** Most bytes of one read: a system call takes no more than 2 GB. */
const longestRead = 2 ** 30;

/** Files that stay open for reading their tensors one after the other. */
export class GgufData {
  readonly #files = new Map<string, number>();

  /** Reads and evaluates a tensor, so that its bytes are let go. */
  read({ path, type, shape, start, bytes }: GgufTensor): Unpacked {
    return mx.scope(() => {
      const blocks = [...shape.slice(0, -1), shape.at(-1)! / type.block, type.bytes];
      const unpacked = type.unpack(mx.array(this.bytes(path, start, bytes), "uint8", blocks));
      mx.eval({ ...unpacked });
      return unpacked;
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
