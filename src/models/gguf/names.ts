/** Names of tensors: GGUF's and the checkpoint's. */

/** Tensors outside the layers. */
const usualOuter: Readonly<Record<string, string>> = {
  token_embd: "model.embed_tokens",
  output_norm: "model.norm",
  output: "lm_head",
};

/** Parts of a layer, in GGUF and in the checkpoint. */
export type LayerNames = Readonly<Record<string, string>>;

/** The layers of Llama and its relatives. */
export const plainLayer: LayerNames = {
  attn_norm: "input_layernorm",
  attn_q: "self_attn.q_proj",
  attn_k: "self_attn.k_proj",
  attn_v: "self_attn.v_proj",
  attn_output: "self_attn.o_proj",
  attn_q_norm: "self_attn.q_norm",
  attn_k_norm: "self_attn.k_norm",
  ffn_norm: "post_attention_layernorm",
  ffn_gate: "mlp.gate_proj",
  ffn_up: "mlp.up_proj",
  ffn_down: "mlp.down_proj",
};

/** Layers with norms before and after each sublayer. */
export const sandwichLayer: LayerNames = {
  ...plainLayer,
  post_attention_norm: "post_attention_layernorm",
  ffn_norm: "pre_feedforward_layernorm",
  post_ffw_norm: "post_feedforward_layernorm",
};

/** Layers whose second norm is called after what it follows. */
const { ffn_norm, ...unnormed } = plainLayer as Record<"ffn_norm", string>;
export const postNormLayer: LayerNames = { ...unnormed, post_attention_norm: ffn_norm };

/** Experts in a module `moe` of the layer, stacked. */
export const expertLayer = (moe: string): LayerNames => ({
  ffn_gate_inp: `${moe}.gate`,
  ffn_gate_exps: `${moe}.switch_mlp.gate_proj`,
  ffn_up_exps: `${moe}.switch_mlp.up_proj`,
  ffn_down_exps: `${moe}.switch_mlp.down_proj`,
});

/** Kimi's delta attention, but its convolutions and its gate. Kimi Team 2025, arXiv:2510.26692. */
export const deltaLayer: LayerNames = {
  ssm_f_a: "self_attn.f_a_proj",
  ssm_f_b: "self_attn.f_b_proj",
  ssm_beta: "self_attn.b_proj",
  ssm_norm: "self_attn.o_norm",
};

/** An expert that every token uses, in a module `path` of the layer. */
export const sharedExpert = (path: string): LayerNames => ({
  ffn_gate_shexp: `${path}.gate_proj`,
  ffn_up_shexp: `${path}.up_proj`,
  ffn_down_shexp: `${path}.down_proj`,
});

/** The weights of hyper-connections ahead of attention and of the feed-forward block. @param path where both are in the layer */
export const connectionNames = (path: (part: "attn" | "ffn") => string): LayerNames =>
  Object.fromEntries(
    (["attn", "ffn"] as const).flatMap((part) =>
      ["fn", "base", "scale"].map((own) => [`hc_${part}_${own}.weight`, `${path(part)}${own}`]),
    ),
  );

/** Gates and values of all experts in one tensor, as some files have them, for a module `moe` with stacked experts. */
export const fusedExperts = (moe: string) => ({
  ffn_gate_up_exps: [`${moe}.switch_mlp.gate_proj`, `${moe}.switch_mlp.up_proj`] as const,
});

/** Experts that are tensors of their own, as old files have them: `blk.0.ffn_gate.3.weight`. */
export interface SingleExperts {
  /** The list of experts in the layer. */
  path: string;
  /** Their projections. */
  parts: LayerNames;
}

export interface OtherNames {
  experts?: SingleExperts;
  /** Tensors whose parameters are called neither weight nor bias: `attn_sinks.weight`, `self_attn.sinks`. */
  parameters?: LayerNames;
  /** Tensors that files may have in the place of two: the upper and the lower half of their rows. Read, never written. */
  halves?: Readonly<Record<string, readonly [string, string]>>;
  /** Tensors outside the layers beside the usual ones, or in their place. */
  outer?: LayerNames;
  /** The same of parameters: `output.weight`, whose parameter is no layer's. */
  outerParameters?: LayerNames;
  /** The list of layers in the checkpoint. */
  layers?: string;
  /** What stands before all names of the checkpoint. */
  prefix?: string;
}

const at = <T>(names: Readonly<Record<string, T>>, key: string): T | undefined =>
  Object.hasOwn(names, key) ? names[key] : undefined;

const inverse = (names: Readonly<Record<string, string>>) =>
  Object.fromEntries(Object.entries(names).map(([theirs, ours]) => [ours, theirs]));

/** The path of a module in the checkpoint, and what a tensor is called there: weight, bias or a name of its own. */
export type Place = readonly [path: string, kind: string];

/** A parameter's name as the path of its module, empty for the model, and its own. */
export function divided(name: string): Place {
  const end = name.lastIndexOf(".");
  return end < 0 ? ["", name] : [name.slice(0, end), name.slice(end + 1)];
}

/** How the tensors of an architecture are named. */
export class TensorNames {
  readonly #layer: LayerNames;
  readonly #ofLayer: LayerNames;
  readonly #outer: LayerNames;
  readonly #ofOuter: LayerNames;
  readonly #outerParameters: LayerNames;
  readonly #ofOuterParameters: LayerNames;
  readonly #experts: SingleExperts | undefined;
  readonly #parameters: LayerNames;
  readonly #ofParameters: LayerNames;
  readonly #halves: NonNullable<OtherNames["halves"]>;
  readonly #layers: string;

  constructor(layer: LayerNames, own: OtherNames = {}) {
    const { experts, parameters = {}, halves = {}, layers = "model.layers", prefix = "" } = own;
    this.#layer = layer;
    this.#ofLayer = inverse(layer);
    const outer = Object.entries({ ...usualOuter, ...own.outer });
    this.#outer = Object.fromEntries(outer.map(([theirs, ours]) => [theirs, prefix + ours]));
    this.#ofOuter = inverse(this.#outer);
    this.#outerParameters = own.outerParameters ?? {};
    this.#ofOuterParameters = inverse(this.#outerParameters);
    this.#experts = experts;
    this.#parameters = parameters;
    this.#ofParameters = inverse(parameters);
    this.#halves = halves;
    this.#layers = prefix + layers;
  }

  /** The number of the layer that a tensor of a file belongs to; undefined for one outside them. */
  static layerOf(name: string): number | undefined {
    const found = /^blk\.(\d+)\./.exec(name);
    return found ? Number(found[1]) : undefined;
  }

  /**
   * Where a tensor belongs in the checkpoint: `blk.3.attn_q.weight` → `["model.layers.3.self_attn.q_proj", "weight"]`; null
   * for a name that the architecture does not have, or one of two halves.
   */
  path(name: string): Place | null {
    const parts = /^(?:blk\.(\d+)\.)?([a-z][a-z0-9_]*(?:\.[a-z][a-z_]*)??)(?:\.(\d+))?(?:\.(weight|bias|scale))?$/.exec(
      name,
    );
    if (!parts) return null;
    const [, layer, part, index, kind] = parts as unknown as [string, string?, string?, string?, string?];
    if (layer === undefined) {
      const own = at(this.#outerParameters, `${part}.${kind}`);
      if (own !== undefined && index === undefined) return divided(own);
      const place = index === undefined && kind ? at(this.#outer, part!) : undefined;
      return place === undefined ? null : [place, kind!];
    }
    const within = `${this.#layers}.${layer}`;
    const single = index === undefined ? at(this.#parameters, kind ? `${part}.${kind}` : part!) : undefined;
    if (single !== undefined) return divided(`${within}.${single}`);
    if (kind === undefined || kind === "scale") return null;
    const experts = index === undefined ? undefined : this.#experts;
    const place = index === undefined ? at(this.#layer, part!) : experts && at(experts.parts, part!);
    if (place === undefined) return null;
    const own = experts ? `${experts.path}.${index}.${place}` : place;
    return [`${within}.${own}`, kind];
  }

  /** The same with the two places of a tensor that is halved; empty for a name that the architecture does not have. */
  places(name: string): Place[] {
    const one = this.path(name);
    if (one) return [one];
    const parts = /^blk\.(\d+)\.([a-z0-9_]+)\.(weight|bias)$/.exec(name);
    const two = parts ? at(this.#halves, parts[2]!) : undefined;
    return (two ?? []).map((place) => [`${this.#layers}.${parts![1]}.${place}`, parts![3]!]);
  }

  /** The other way round: a parameter's name in the checkpoint → GGUF's; null where it has none. */
  ofParameter(name: string): string | null {
    const alone = at(this.#ofOuterParameters, name);
    if (alone !== undefined) return alone;
    const whole = /^(.+)\.(weight|bias)$/.exec(name);
    const outside = whole && at(this.#ofOuter, whole[1]!);
    if (outside) return `${outside}.${whole[2]}`;
    const [layer, own] = this.withinLayer(name);
    const tensor = layer !== undefined && at(this.#ofParameters, own);
    if (tensor) return `blk.${layer}.${tensor}`;
    const parts = /^(.+)\.(weight|bias)$/.exec(own);
    if (!parts) return null;
    const [, path, kind] = parts as unknown as [string, string, string];
    const theirs = layer === undefined ? undefined : at(this.#ofLayer, path);
    return theirs === undefined ? null : `blk.${layer}.${theirs}.${kind}`;
  }

  /** Where a part of a layer is in the checkpoint's layer: `attn_q` → `self_attn.q_proj`. */
  ofPart(part: string): string | undefined {
    return at(this.#layer, part);
  }

  /** The path of a module in a layer. */
  inLayer(layer: number | string, own: string): string {
    return `${this.#layers}.${layer}.${own}`;
  }

  /** A name or path of the checkpoint without its layer; undefined and the whole name for one outside them. */
  withinLayer(name: string): [layer: string | undefined, own: string] {
    const start = `${this.#layers}.`;
    const parts = name.startsWith(start) ? /^(\d+)\.(.+)$/.exec(name.slice(start.length)) : null;
    return parts ? [parts[1], parts[2]!] : [undefined, name];
  }
}
