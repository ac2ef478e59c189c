/** The adapters of one model that its batch shares: loaded when they are asked for, unloaded when memory is short. */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { loadOnAll, unloadOnAll } from "../../generate/ranks/adapters";
import { isLaunched } from "../../mlx/group-environment";
import type { LanguageModel } from "../../models";
import { weightsName } from "../../tune/adapter-files";
import type { AdapterPool, PooledAdapter } from "../../tune/adapter-pool";
import type { KeptPrefixes, RadixPrefixes } from "../prefixes/radix-prefixes";

/** An adapter that answers. */
export interface ServedAdapter {
  /** What the operator calls it. */
  name: string;
  pooled: PooledAdapter;
  /** What was read with it. */
  prefixes: KeptPrefixes;
}

interface Loaded {
  adapter: ServedAdapter;
  users: number;
  lastUse: number;
}

export interface AdapterEvents {
  /** Waits for memory for so many bytes. */
  room(bytes: number): Promise<void>;
  onLoaded(adapter: ServedAdapter): Promise<void>;
  onUnload(adapter: ServedAdapter): Promise<void>;
}

/** While a model runs, factors lie in memory twice: by themselves, and beside the others'. */
const copies = 2;

export class ServedAdapters {
  readonly #loaded = new Map<string, Loaded>();
  /** Adapters are loaded one after the other. */
  #loading: Promise<unknown> = Promise.resolve();
  #signs = 0;

  constructor(
    private readonly model: LanguageModel,
    private readonly pool: AdapterPool,
    private readonly prefixes: RadixPrefixes,
  ) {}

  /** Those that are loaded. */
  get loaded(): { adapter: ServedAdapter; users: number; lastUse: number }[] {
    return [...this.#loaded.values()];
  }

  /** The named adapter, loaded where need be; it stays until it is released. @throws UserError where it does not fit the model */
  async lease(
    name: string,
    folder: string,
    events: AdapterEvents,
  ): Promise<{ adapter: ServedAdapter; release: () => void }> {
    const loading = this.#loading.then(async () => this.#loaded.get(name) ?? this.#load(name, folder, events));
    this.#loading = loading.catch(() => {});
    const loaded = await loading;
    loaded.users++;
    return {
      adapter: loaded.adapter,
      release: () => {
        loaded.users--;
        loaded.lastUse = Date.now();
      },
    };
  }

  async #load(name: string, folder: string, { room, onLoaded }: AdapterEvents): Promise<Loaded> {
    await room(copies * (await stat(join(folder, weightsName))).size);
    const pooled = await (isLaunched() ? loadOnAll(this.model, this.pool, folder) : this.pool.load(folder));
    if (!pooled) throw new Error(`${folder} is no LoRA adapter`);
    this.#signs -= 1;
    const adapter = { name, pooled, prefixes: this.prefixes.behind(this.#signs) };
    const loaded = { adapter, users: 0, lastUse: Date.now() };
    this.#loaded.set(name, loaded);
    await onLoaded(adapter);
    return loaded;
  }

  /** Unloads an adapter that nobody uses. */
  async unload(
    { name, pooled, prefixes }: ServedAdapter,
    { onUnload }: Pick<AdapterEvents, "onUnload">,
  ): Promise<void> {
    const loaded = this.#loaded.get(name);
    if (!loaded || loaded.users > 0) return;
    this.#loaded.delete(name);
    try {
      await onUnload(loaded.adapter);
    } finally {
      prefixes.clear();
      if (isLaunched()) await unloadOnAll(this.model, this.pool, pooled);
      else this.pool.unload(pooled);
    }
  }
}
