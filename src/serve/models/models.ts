/** The models that are served: found by name, loaded when they are asked for, unloaded when they are not. */
import { freeModel } from "../../convert/load";
import { ExitCode, UserError } from "../../errors";
import type { OpenedModel } from "../../generate/open-model";
import type { CacheMover } from "../../generate/ranks/lead";
import { partWaysUnlessShared } from "../../generate/ranks/lost";
import { inTurn } from "../../generate/ranks/turns";
import { isLaunched } from "../../mlx/group-environment";
import { canPool } from "../../tune/adapter-pool";
import { ApiError, apiErrorOf } from "../api-error";
import type { MemoryBudget } from "../engine/memory-budget";
import type { Origin, PrefixFiles } from "../prefixes/prefix-files";
import type { KeptPrefixes } from "../prefixes/radix-prefixes";
import type { EngineSettings } from "../settings";
import type { ServedAdapter } from "./served-adapters";
import { ServedModel } from "./served-model";

/** A model as the operator named it, or as it lies in the cache. */
export interface ModelSource {
  /** What clients call it. */
  name: string;
  /** What is opened: a folder, a repo, or undefined for what mlxlm takes where none is named. */
  open: string | undefined;
  adapterPath?: string;
}

/** Opens a model. @throws UserError where there is none such */
export type Open = (source: ModelSource) => Promise<OpenedModel>;

export interface ModelsOptions {
  open: Open;
  budget: MemoryBudget;
  settings: EngineSettings;
  /** The model that answers where a request names none, and any name where it is the only one. */
  main?: ModelSource;
  /** Others that may be asked for. */
  allowed?: readonly ModelSource[];
  /** Finds one that the operator did not name; absent where only those that were named are served. */
  find?: (name: string) => Promise<ModelSource | null>;
  /** Those that `find` finds. */
  others?: () => Promise<ModelSource[]>;
  /** Adapters by name, for requests that ask for one. */
  adapters?: ReadonlyMap<string, string>;
  /** Beside every model that answers: proposes tokens. */
  draft?: () => Promise<OpenedModel>;
  /** Bytes that a model's weights take, told without loading it. */
  size?: (source: ModelSource) => Promise<number>;
  /** Keeps prompts over restarts. */
  prefixFiles?: PrefixFiles;
  /** Seconds without a request after which a model is unloaded; never where negative. */
  keepAlive?: number;
  /** Called once nobody has asked for a while. */
  onRest?: () => void;
  /** Seconds of that while. */
  restAfter?: number;
  /** Told as models come and go. */
  onEvent?: (event: { type: "loading" | "loaded" | "unloaded"; model: string; seconds?: number }) => void;
}

/** A model in use: it stays loaded until it is released. */
export interface Lease {
  served: ServedModel;
  /** The adapter that it shares with none or others of its batch; null where it has none, or one for good. */
  adapter: ServedAdapter | null;
  release(): void;
}

interface Loaded {
  served: ServedModel;
  origin: Origin;
  users: number;
  lastUse: number;
  /** Seconds; a request may say. */
  keepAlive: number;
  timer: ReturnType<typeof setTimeout> | null;
}

/** Seconds: longer than a person takes to ask the next question at once. */
const usualRest = 10;

/** Seconds that answers have to end when nobody hears them any more. */
const lastSteps = 10;

/** Seconds between two signs of life of engines that wait. */
const beat = 10;

/** Names that stand for the model that the server was started with. */
const defaultNames = new Set(["", "default", "default_model"]);

export class Models {
  readonly #loaded = new Map<string, Loaded>();
  /** Models are loaded one after the other. */
  #loading: Promise<unknown> = Promise.resolve();
  /** Models that are being unloaded: none is loaded meanwhile, for ranks do one thing after the other. */
  readonly #dropping = new Set<Promise<void>>();
  /** Called when a model is free again. */
  #onFree: (() => void)[] = [];
  #resting: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly options: ModelsOptions) {}

  /** The models that are loaded. */
  get loaded(): { served: ServedModel; users: number; expires: Date | null }[] {
    return [...this.#loaded.values()].map(({ served, users, lastUse, keepAlive }) => {
      return { served, users, expires: keepAlive < 0 ? null : new Date(lastUse + keepAlive * 1000) };
    });
  }

  /** The models that can be asked for, the main one first. */
  async list(): Promise<ModelSource[]> {
    const { main, allowed = [], others } = this.options;
    const named = [...(main ? [main] : []), ...allowed];
    const more = others ? await others() : [];
    return [...named, ...more.filter(({ name }) => !named.some((one) => one.name === name))];
  }

  /** @throws ApiError 404 for a name that is not served */
  async find(name = ""): Promise<ModelSource> {
    const { main, allowed = [], find } = this.options;
    // Ollama's clients add a tag.
    const plain = name.replace(/:latest$/, "");
    if (defaultNames.has(plain) && main) return main;
    const known = [...(main ? [main] : []), ...allowed].find((one) => one.name === name || one.name === plain);
    if (known) return known;
    const found = find ? ((await find(name)) ?? (plain === name ? null : await find(plain))) : null;
    if (found) return found;
    if (main && allowed.length === 0 && !find) return main;
    if (defaultNames.has(plain)) throw new ApiError(400, '"model" must name a model', { param: "model" });
    throw new ApiError(404, `the model ${JSON.stringify(name)} is not served here`, {
      param: "model",
      code: "model_not_found",
    });
  }

  /**
   * The named model, loaded where need be.
   * @param keepAlive seconds that it stays loaded behind this request, in place of the server's own
   * @throws ApiError for a name that is not served, an adapter that there is not, a model that there is no memory for
   */
  async lease(name?: string, { adapter, keepAlive }: { adapter?: string; keepAlive?: number } = {}): Promise<Lease> {
    const source = await this.find(name);
    if (adapter === undefined) return this.#lease(source.name, source, keepAlive);
    const folder = this.#adapter(adapter);
    const key = `${source.name} with ${adapter}`;
    return (
      (await this.#shared(source, adapter, folder, keepAlive)) ??
      this.#lease(key, { ...source, adapterPath: folder }, keepAlive)
    );
  }

  /** The model with an adapter that other requests to it need not have; null where that cannot be. */
  async #shared(source: ModelSource, name: string, folder: string, keepAlive?: number): Promise<Lease | null> {
    const { settings, draft } = this.options;
    if (
      settings.kvQuantization ||
      settings.ownDrafts ||
      draft ||
      source.adapterPath !== undefined ||
      !(await canPool(folder))
    )
      return null;
    const base = await this.#lease(source.name, source, keepAlive);
    try {
      if (base.served.sharesAdapters) {
        const events = this.#adapterEvents(this.#loaded.get(source.name)!);
        const { adapter, release } = await base.served.adapters.lease(name, folder, events).catch((error) => {
          throw openError(error);
        });
        return {
          served: base.served,
          adapter,
          release: () => {
            release();
            base.release();
          },
        };
      }
    } catch (error) {
      base.release();
      throw error;
    }
    base.release();
    return null;
  }

  #adapterEvents({ served, origin }: Loaded) {
    const { onEvent, prefixFiles } = this.options;
    const originOf = ({ pooled }: ServedAdapter) => ({ ...origin, paths: [...origin.paths, pooled.folder] });
    const nameOf = ({ name }: ServedAdapter) => `${served.name} with ${name}`;
    return {
      room: (bytes: number) => this.#makeRoom(bytes),
      onLoaded: async (adapter: ServedAdapter) => {
        await prefixFiles?.restore(served.model, originOf(adapter), adapter.prefixes, served.mover);
        onEvent?.({ type: "loaded", model: nameOf(adapter) });
      },
      onUnload: async (adapter: ServedAdapter) => {
        await this.#save(originOf(adapter), adapter.prefixes, served.mover);
        onEvent?.({ type: "unloaded", model: nameOf(adapter) });
      },
    };
  }

  async #lease(key: string, source: ModelSource, keepAlive?: number): Promise<Lease> {
    const loaded = this.#loaded.get(key) ?? (await this.#queued(key, source));
    loaded.users++;
    clearTimeout(this.#resting);
    if (loaded.timer) clearTimeout(loaded.timer);
    loaded.timer = null;
    if (keepAlive !== undefined) loaded.keepAlive = keepAlive;
    let isHeld = true;
    return {
      served: loaded.served,
      adapter: null,
      release: () => {
        if (isHeld) this.#release(key, loaded);
        isHeld = false;
      },
    };
  }

  /** Bytes of a model's weights; 0 where that is not known. */
  async sizeOf(source: ModelSource): Promise<number> {
    return (await this.options.size?.(source).catch(() => 0)) ?? 0;
  }

  /** Unloads what nobody uses. @returns whether it was loaded and free */
  async unload(name?: string): Promise<boolean> {
    const source = await this.find(name);
    const loaded = this.#loaded.get(source.name);
    if (!loaded || loaded.users > 0) return false;
    await this.#drop(source.name, loaded);
    return true;
  }

  #adapter(name: string): string {
    const path = this.options.adapters?.get(name);
    if (path !== undefined) return path;
    const known = [...(this.options.adapters?.keys() ?? [])];
    const others = known.length === 0 ? "the server has none" : `there are ${known.join(", ")}`;
    throw new ApiError(404, `there is no adapter ${JSON.stringify(name)}: ${others}`, { param: "adapters" });
  }

  #queued(key: string, source: ModelSource): Promise<Loaded> {
    const loading = this.#loading.then(() => this.#loaded.get(key) ?? this.#load(key, source));
    this.#loading = loading.catch(() => {});
    return loading;
  }

  async #load(key: string, source: ModelSource): Promise<Loaded> {
    const { keepAlive = -1, onEvent, prefixFiles } = this.options;
    await Promise.all(this.#dropping);
    onEvent?.({ type: "loading", model: key });
    const began = performance.now();
    await this.#makeRoom(await this.sizeOf(source));
    const [opened, served] = await inTurn(() => this.#open(key, source)).catch((error) => {
      throw openError(error);
    });
    // The weights may be more than was thought: of several ranks some have parts whole.
    await this.#makeRoom(0);
    const { adapterPath } = source;
    const origin = { config: opened.config, paths: [opened.folder, ...(adapterPath ? [adapterPath] : [])] };
    await prefixFiles?.restore(served.model, origin, served.prefixes, served.mover);
    const loaded: Loaded = { served, origin, users: 0, lastUse: Date.now(), keepAlive, timer: null };
    this.#loaded.set(key, loaded);
    onEvent?.({ type: "loaded", model: key, seconds: (performance.now() - began) / 1000 });
    return loaded;
  }

  /** Of several ranks: in turn. */
  async #open(key: string, source: ModelSource): Promise<[OpenedModel, ServedModel]> {
    const { open, settings, budget, draft } = this.options;
    // Answers of other models wait on ranks, which is no sign that their engines are lost.
    const beating = setInterval(() => {
      for (const { served } of this.#loaded.values()) served.scheduler.beat();
    }, beat * 1000);
    try {
      const opened = await open(source);
      try {
        return [opened, new ServedModel(opened, { name: key, budget, settings, draft: await draft?.() })];
      } catch (error) {
        freeModel(opened);
        throw error;
      }
    } catch (error) {
      if (isLaunched()) partWaysUnlessShared(error);
      throw error;
    } finally {
      clearInterval(beating);
    }
  }

  /** Unloads what has not been used for the longest time, until so many bytes fit. Waits for what is in use. */
  async #makeRoom(bytes: number): Promise<void> {
    const { budget } = this.options;
    while (budget.weights + bytes > budget.limit && this.#loaded.size > 0) {
      const models = [...this.#loaded].flatMap(([key, loaded]) => {
        return loaded.users > 0 ? [] : { lastUse: loaded.lastUse, drop: () => this.#drop(key, loaded) };
      });
      const adapters = [...this.#loaded.values()].flatMap((loaded) =>
        loaded.served.adapters.loaded.flatMap(({ adapter, users, lastUse }) => {
          const drop = () => loaded.served.adapters.unload(adapter, this.#adapterEvents(loaded));
          return users > 0 ? [] : { lastUse, drop };
        }),
      );
      // Of those that were used last at the same time the adapter goes: its model may have others.
      const [oldest] = [...adapters, ...models].sort((a, b) => a.lastUse - b.lastUse);
      if (oldest) await oldest.drop();
      else await new Promise<void>((resolve) => this.#onFree.push(resolve));
    }
    if (bytes <= budget.limit) return;
    const [needed, limit] = [bytes, budget.limit].map((count) => `${(count / 1e9).toFixed(1)} GB`);
    throw new ApiError(503, `the model needs ${needed} of memory, and ${limit} are allowed`, { code: "out_of_memory" });
  }

  #release(key: string, loaded: Loaded): void {
    loaded.users--;
    loaded.lastUse = Date.now();
    if (loaded.users > 0) return;
    for (const resolve of this.#onFree.splice(0)) resolve();
    this.#rest();
    if (loaded.keepAlive < 0) return;
    const idle = () => {
      if (loaded.users === 0) void this.#drop(key, loaded);
    };
    // Longer than a timer can run is as good as for ever.
    if (loaded.keepAlive < 2_000_000) loaded.timer = setTimeout(idle, loaded.keepAlive * 1000);
    loaded.timer?.unref();
  }

  /** Has `onRest` called, unless somebody asks before. */
  #rest(): void {
    const { onRest, restAfter = usualRest } = this.options;
    clearTimeout(this.#resting);
    if (!onRest || [...this.#loaded.values()].some(({ users }) => users > 0)) return;
    this.#resting = setTimeout(onRest, restAfter * 1000);
    this.#resting.unref();
  }

  #drop(key: string, loaded: Loaded): Promise<void> {
    const dropping = this.#dropNow(key, loaded);
    const settled = dropping.catch(() => {});
    this.#dropping.add(settled);
    void settled.then(() => this.#dropping.delete(settled));
    return dropping;
  }

  async #dropNow(key: string, loaded: Loaded): Promise<void> {
    const { served, origin, timer } = loaded;
    if (timer) clearTimeout(timer);
    if (!this.#loaded.delete(key)) return;
    // Answers that nobody hears any more end with their next steps. Several ranks would part ways if the model went before.
    const quiet = served.scheduler.quiet();
    await (isLaunched() ? quiet : Promise.race([quiet, Bun.sleep(lastSteps * 1000)]));
    const events = this.#adapterEvents(loaded);
    try {
      for (const { adapter } of served.adapters.loaded) await served.adapters.unload(adapter, events);
      await this.#save(origin, served.prefixes, served.mover);
    } finally {
      await inTurn(() => served.dispose());
      this.options.onEvent?.({ type: "unloaded", model: key });
    }
  }

  async #save(origin: Origin, prefixes: KeptPrefixes, mover?: CacheMover | null): Promise<void> {
    const { prefixFiles } = this.options;
    try {
      await prefixFiles?.save(origin, prefixes, mover);
    } catch (error) {
      prefixFiles!.onProblem(`prompts could not be kept: ${(error as Error).message}`);
    }
  }

  /** Unloads all, whoever uses them. */
  async dispose(): Promise<void> {
    clearTimeout(this.#resting);
    await Promise.all([...this.#loaded].map(([key, loaded]) => this.#drop(key, loaded)));
  }
}

/** A model that cannot be opened is the server's trouble, but one that is not there is the request's. */
function openError(error: unknown): unknown {
  if (!(error instanceof UserError)) return error;
  if (error.code === ExitCode.notFound) return apiErrorOf(error);
  return new ApiError(503, `the model cannot be loaded: ${error.message}`, { code: "model_unavailable", cause: error });
}
