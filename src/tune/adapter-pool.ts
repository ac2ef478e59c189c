/**
 * Several LoRA adapters on one model: loaded and unloaded while the model runs, chosen for each row of a batch.
 *
 *   const pool = new AdapterPool(model);
 *   const pirate = await pool.load("./adapters/pirate");
 *   pool.reading([pirate, null], () => model.forward(ids, { cache }));   // ids (2, T)
 */
import { ExitCode, UserError } from "../errors";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import type { LanguageModel } from "../models";
import { incompatible, openAdapter } from "./adapter-files";
import type { RowChoice, SharedLora } from "./shared-lora";
import { sharedOver, WholeLayers } from "./whole-layers";

/** An adapter that lies in a pool. */
export interface PooledAdapter {
  readonly folder: string;
  /** Bytes of its factors. */
  readonly nbytes: number;
}

/** Factors of adapters that are no longer in use stay beside the others' until they are so many times as many. */
const mostIdle = 2;

export class AdapterPool {
  readonly #adapters = new Set<PooledAdapter>();
  readonly #layers = new Map<string, SharedLora>();
  /** The adapters whose factors stand side by side. */
  #members: readonly PooledAdapter[] = [];
  /** The adapter of each row that the model reads; null while none of them has one. */
  #rows: readonly (PooledAdapter | null)[] | null = null;
  /** Of the rows of the last step: the next one has mostly the same. */
  #masked: readonly (PooledAdapter | null)[] = [];
  readonly #masks = new Map<string, Tensor>();

  /** The layers of the model; absent until they are needed. */
  #whole: WholeLayers | null;

  /** @param whole of a model that is divided among processes: its layers as they were before */
  constructor(
    private readonly model: LanguageModel,
    /** Told how many bytes there are. */
    private readonly onChange: (bytes: number) => void = () => {},
    whole: WholeLayers | null = null,
  ) {
    this.#whole = whole;
  }

  get nbytes(): number {
    let sum = 0;
    for (const { nbytes } of this.#adapters) sum += nbytes;
    for (const layer of this.#layers.values()) sum += layer.stackedBytes;
    return sum;
  }

  /**
   * An adapter of a folder; null for one of a kind that rows cannot have apart (DoRA, a full fine-tuning).
   * @throws UserError where the folder, a file or a tensor is missing, broken, or does not fit the model
   */
  async load(folder: string): Promise<PooledAdapter | null> {
    const opened = await openAdapter(folder);
    if (opened.type !== "lora") return null;
    const { numLayers, header, path } = opened;
    const { rank, scale, keys } = opened.parameters;
    this.#whole ??= new WholeLayers(this.model);
    const layers = this.#whole.find(numLayers, keys ?? undefined);
    const parts = [...header.tensors].map(([name, { shape }]) => {
      const [at, factor] = [name.slice(0, name.lastIndexOf(".")), name.slice(name.lastIndexOf(".") + 1)];
      const expected = layers.get(at)?.shapes(rank)[["lora_a", "lora_b"].indexOf(factor)];
      return { at, factor, name, shape, expected };
    });
    const problem = incompatible(folder, parts);
    if (problem) throw problem;
    const pairs = [...layers.keys()].filter((at) => parts.filter((part) => part.at === at).length === 2);
    if (pairs.length === 0) throw noFactors(folder);
    const own = this.#own(pairs, layers);
    const adapter = { folder, nbytes: 0 };
    mx.scope(() => {
      const { arrays } = mx.loadSafetensors(path);
      const factors = own.map(({ at, shared }) => {
        const { a, b } = shared.part({ a: arrays.get(`${at}.lora_a`)!, b: arrays.get(`${at}.lora_b`)! });
        return { a, b: b.multiply(mx.array(scale, b.dtype)) };
      });
      mx.eval(factors);
      for (const [i, { at, path, shared }] of own.entries()) {
        shared.add(adapter, factors[i]!);
        adapter.nbytes += factors[i]!.a.nbytes + factors[i]!.b.nbytes;
        if (this.#layers.has(at)) continue;
        this.#layers.set(at, shared);
        this.model.replace(path, shared);
      }
    });
    this.#adapters.add(adapter);
    this.onChange(this.nbytes);
    return adapter;
  }

  /** Of layers of the whole model those of this process: where they are, and what stands in for them. */
  #own(names: readonly string[], layers: ReturnType<WholeLayers["find"]>) {
    const paths = new Map(this.model.namedModules().map(([path, module]) => [module, path]));
    const isWhole = this.model.layers.length === this.#whole!.blocks;
    return names.flatMap((at) => {
      const known = this.#layers.get(at);
      const { layer } = layers.get(at)!;
      const path = paths.get(known ?? layer);
      const shared = known ?? sharedOver(layer, () => this.#choice);
      if (path !== undefined && shared) return [{ at, path, shared }];
      // Other processes have the rest.
      if (!isWhole) return [];
      throw new Error(`${at} is no longer in the model`);
    });
  }

  /** Gives an adapter's memory back. No row may have it any more. */
  unload(adapter: PooledAdapter): void {
    if (!this.#adapters.delete(adapter)) return;
    for (const layer of this.#layers.values()) layer.remove(adapter);
    this.#members = this.#members.filter((one) => one !== adapter);
    this.#forgetMasks();
    this.onChange(this.nbytes);
  }

  /** Runs the model (within `run`) for rows of which each has its adapter or none. */
  reading<T>(rows: readonly (PooledAdapter | null)[], run: () => T): T {
    if (rows.every((adapter) => adapter === null)) return run();
    const before = this.#members;
    this.#gather(rows);
    this.#rows = rows;
    try {
      return run();
    } finally {
      this.#rows = null;
      if (this.#members !== before) this.onChange(this.nbytes);
    }
  }

  /** Sees to it that the factors of all adapters in use stand side by side. */
  #gather(rows: readonly (PooledAdapter | null)[]): void {
    const used = new Set(rows.filter((adapter) => adapter !== null));
    const isThere = [...used].every((adapter) => this.#members.includes(adapter));
    if (!isThere || this.#members.length > mostIdle * used.size) this.#members = [...used];
    else if (rows.length === this.#masked.length && rows.every((one, i) => one === this.#masked[i])) return;
    this.#masked = [...rows];
    this.#forgetMasks();
  }

  get #choice(): RowChoice | null {
    const rows = this.#rows;
    if (!rows) return null;
    const mask = (of: readonly { adapter: object; rank: number }[]): Tensor | null => {
      if (of.length === 1 && rows.every((adapter) => adapter === of[0]!.adapter)) return null;
      const key = of.map(({ adapter, rank }) => `${this.#members.indexOf(adapter as PooledAdapter)}:${rank}`).join();
      let known = this.#masks.get(key);
      if (!known) {
        const bits = rows.flatMap((row) =>
          of.flatMap(({ adapter, rank }) => new Array<boolean>(rank).fill(adapter === row)),
        );
        known = mx.keep(mx.array(bits, "bool", [rows.length, bits.length / rows.length]));
        this.#masks.set(key, known);
      }
      return known;
    };
    return { members: this.#members, mask, rows: rows.length };
  }

  #forgetMasks(): void {
    for (const mask of this.#masks.values()) mx.release(mask);
    this.#masks.clear();
  }

  /** The layers stay in the model, which frees them. */
  dispose(): void {
    for (const adapter of [...this.#adapters]) this.unload(adapter);
    this.#forgetMasks();
  }
}

function noFactors(folder: string): UserError {
  return new UserError(`the adapter in ${folder} changes no layer: it has no pair of lora_a and lora_b`, {
    code: ExitCode.notFound,
    hint: "The training may have ended before its first checkpoint.",
  });
}

/** Whether a folder has an adapter of the kind that a pool takes. */
export const canPool = (folder: string): Promise<boolean> =>
  openAdapter(folder).then(
    ({ type }) => type === "lora",
    () => false,
  );
