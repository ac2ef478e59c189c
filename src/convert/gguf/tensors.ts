/** The tensors of a GGUF file, in MLX's forms. */
import { closeSync, openSync, readSync } from "node:fs";
import { basename } from "node:path";
import { UserError } from "../../errors";
import * as mx from "../../mlx";
import type { GgufTensor } from "./header";
import type { Unpacked } from "./types";

/** Most bytes of one read: a system call takes no more than 2 GB. */
const longestRead = 2 ** 30;

/** The file, for reading its tensors one after the other. */
export class GgufData {
  readonly #file: number;

  constructor(private readonly path: string) {
    this.#file = openSync(path, "r");
  }

  /** Reads and evaluates a tensor, so that its bytes are let go. */
  read({ type, shape, start, bytes }: GgufTensor): Unpacked {
    return mx.scope(() => {
      const blocks = [...shape.slice(0, -1), shape.at(-1)! / type.block, type.bytes];
      const unpacked = type.unpack(mx.array(this.bytes(start, bytes), "uint8", blocks));
      mx.eval({ ...unpacked });
      return unpacked;
    });
  }

  private bytes(start: number, length: number): Uint8Array {
    const data = new Uint8Array(length);
    for (let done = 0; done < length; ) {
      const read = readSync(this.#file, data, done, Math.min(length - done, longestRead), start + done);
      if (read === 0) {
        throw new UserError(
          `${basename(this.path)} ends at byte ${start + done}: it became shorter while it was read`,
          {
            hint: "Try again when nothing writes to the file.",
          },
        );
      }
      done += read;
    }
    return data;
  }

  close(): void {
    closeSync(this.#file);
  }
}
