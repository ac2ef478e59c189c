/** A model's layers as adapters know them: those of the whole model, whichever part of it this process has. */
import type { LanguageModel } from "../models";
import { LoneCacheList, type Module } from "../nn";
import {
  type AdaptableLayer,
  adaptableLayers,
  embeddings,
  isOf,
  layersToAdapt,
  linears,
  switches,
} from "./linear-to-lora";
import {
  type RowChoice,
  type SharedLora,
  SharedLoraEmbedding,
  SharedLoraLinear,
  SharedLoraSwitchLinear,
} from "./shared-lora";

export interface WholeLayer extends AdaptableLayer {
  /** Shapes of A and B of an adapter of a rank. */
  shapes(rank: number): [a: number[], b: number[]];
}

/** What stands in for a layer, so that adapters can share it; null for one of a kind that they cannot. */
export function sharedOver(layer: Module, choice: () => RowChoice | null): SharedLora | null {
  if (isOf(layer, linears)) return new SharedLoraLinear(layer, choice);
  if (isOf(layer, switches)) return new SharedLoraSwitchLinear(layer, choice);
  if (isOf(layer, embeddings)) return new SharedLoraEmbedding(layer, choice);
  return null;
}

/** Whether a model reads the rows of a batch together, so that each can have an adapter of its own. */
export function canShareAdapters(model: LanguageModel): boolean {
  const cache = model.makeCache();
  const readsTogether = !cache.some((layer) => layer instanceof LoneCacheList);
  for (const layer of cache) layer.dispose();
  return readsTogether;
}

export class WholeLayers {
  readonly #layers: ReturnType<typeof adaptableLayers>;
  readonly #shapes = new Map<string, WholeLayer["shapes"]>();
  /** As `canShareAdapters` says. */
  readonly readsRowsTogether: boolean;

  /** @param model as it is before it is divided among processes */
  constructor(model: LanguageModel) {
    this.#layers = adaptableLayers(model);
    for (const { path, layer } of this.#layers.all) {
      const known = sharedOver(layer, () => null);
      if (!known) continue;
      const [a, b] = known.shapes(1);
      const [axisA, axisB] = known.rankAxes;
      this.#shapes.set(path, (rank) => [a.with(axisA, rank), b.with(axisB, rank)]);
    }
    this.readsRowsTogether = canShareAdapters(model);
  }

  /** How many blocks there are. */
  get blocks(): number {
    return this.#layers.blocks.length;
  }

  /** The layers that adapters of these settings change, by their paths in the whole model. */
  find(numLayers: number, keys?: readonly string[]): Map<string, WholeLayer> {
    return new Map(
      [...layersToAdapt(this.#layers, numLayers, keys)].flatMap(([path, layer]) => {
        const shapes = this.#shapes.get(path);
        return shapes ? [[path, { ...layer, shapes }] as const] : [];
      }),
    );
  }
}
