/** Draft layers that are a block of the model's kind each, with norms and a projection of their own beside its parts. */
import { type Cache, type DecoderLayer, type Layer, Linear, Module, RMSNorm } from "../../nn";
import { DraftHead, type DraftHeadOptions, type DraftParts, type Trunk } from "./draft-head";

/** What checkpoints call the parts beside the block's. */
export interface DraftLayerNames {
  embedding: string;
  hidden: string;
  projection: string;
  /** null: `shared_head.norm`; "model": the model's */
  last: string | null;
}

/** As DeepSeek's checkpoints have them, and those of most others. */
export const usualNames: DraftLayerNames = { embedding: "enorm", hidden: "hnorm", projection: "eh_proj", last: null };

/** The same, but for the last norm's. */
export const finalNames: DraftLayerNames = { ...usualNames, last: "final_layernorm" };

class SharedHead extends Module {
  norm: RMSNorm;
  /** There where the layer does not share the model's. */
  output?: Layer;

  constructor(dims: number, eps: number, vocabulary: number | null) {
    super();
    this.norm = new RMSNorm(dims, eps);
    if (vocabulary !== null) this.output = new Linear(dims, vocabulary, { bias: false });
  }
}

interface LayeredOptions extends DraftHeadOptions {
  names?: DraftLayerNames;
  /** How many tokens the layers' own heads know, where they have some. */
  ownHead?: number;
}

/** For `last`. */
const models = "model";

interface Sizes {
  hidden_size: number;
  rms_norm_eps: number;
}

export class LayeredHead extends DraftHead {
  layers: DecoderLayer<Cache>[];
  readonly #names: DraftLayerNames;

  /** @param blocks one for each draft layer */
  constructor(
    trunk: Trunk,
    blocks: readonly Module[],
    { hidden_size: dims, rms_norm_eps: eps }: Sizes,
    { names = usualNames, ownHead, ...options }: LayeredOptions = {},
  ) {
    super(trunk, options);
    this.#names = names;
    this.layers = blocks.map((block) =>
      Object.assign(block as DecoderLayer<Cache>, {
        [names.embedding]: new RMSNorm(dims, eps),
        [names.hidden]: new RMSNorm(dims, eps),
        [names.projection]: new Linear(2 * dims, dims, { bias: false }),
        ...(names.last === null && { shared_head: new SharedHead(dims, eps, ownHead ?? null) }),
        ...(names.last !== null && names.last !== models && { [names.last]: new RMSNorm(dims, eps) }),
      }),
    );
  }

  get depth(): number {
    return this.layers.length;
  }

  protected parts(index: number): DraftParts {
    const { embedding, hidden, projection, last } = this.#names;
    const block = this.layers[index]!;
    const part = block as unknown as Record<string, RMSNorm & Linear & SharedHead>;
    return {
      embeddingNorm: part[embedding]!,
      hiddenNorm: part[hidden]!,
      projection: part[projection]!,
      blocks: [block],
      lastNorm: last === null ? part.shared_head!.norm : part[last],
      head: last === null ? part.shared_head!.output : undefined,
    };
  }
}
