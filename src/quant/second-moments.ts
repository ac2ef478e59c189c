/** H = Σ xᵀx over all inputs x of a layer: GPTQ's measure of which of a weight's errors matter. */
import type { distributed, Tensor } from "../mlx";
import * as mx from "../mlx";
import { intercept, type Module } from "../nn";

/** Layers that are always given the same input, and its second moments. */
export interface Moments {
  layers: Module[];
  /** (K, K) float32, kept. */
  H: Tensor;
}

export class SecondMoments {
  readonly #sums: Moments[] = [];
  readonly #sumOf = new Map<Module, Moments>();
  /** The inputs of the pass that is under way. */
  readonly #inputs = new Map<Tensor, Moments>();
  readonly #undo: (() => void)[];

  /** Watches the layers until `stop`. */
  constructor(layers: Iterable<Module>) {
    this.#undo = [...layers].map((layer) =>
      intercept(layer, (original, args) => {
        this.#add(layer, args[0] as Tensor);
        return original(...args);
      }),
    );
  }

  /** Lazily: `finishPass` ends what is under way. */
  #add(layer: Module, x: Tensor): void {
    const known = this.#sumOf.get(layer);
    const same = this.#inputs.get(x);
    if (!known && same) {
      same.layers.push(layer);
      this.#sumOf.set(layer, same);
      return;
    }
    if (known && same === known) return;
    const rows = x.reshape(-1, x.dim(-1)).astype("float32");
    const product = rows.T.matmul(rows);
    const sum = known ?? { layers: [layer], H: mx.keep(mx.zerosLike(product)) };
    if (!known) {
      this.#sums.push(sum);
      this.#sumOf.set(layer, sum);
    }
    const H = mx.keep(sum.H.add(product));
    mx.release(sum.H);
    sum.H = H;
    this.#inputs.set(x, sum);
  }

  /** The sums, to be evaluated with what the pass computed; the next pass has other inputs. */
  finishPass(): Tensor[] {
    this.#inputs.clear();
    return this.#sums.map(({ H }) => H);
  }

  /** Makes them the sums over all ranks' inputs. All ranks call it, having watched the same layers. */
  sumOver(group: distributed.Group): void {
    for (const sum of this.#sums) {
      const H = mx.keep(mx.scope(() => mx.distributed.allSum(sum.H, { group })));
      mx.eval(H);
      mx.release(sum.H);
      sum.H = H;
    }
  }

  /** Each input's moments once, with the layers that it goes to. */
  get sums(): readonly Moments[] {
    return this.#sums;
  }

  stop(): void {
    for (const undo of this.#undo.splice(0)) undo();
  }

  dispose(): void {
    this.stop();
    for (const { H } of this.#sums.splice(0)) mx.release(H);
    this.#sumOf.clear();
  }
}
