/** Names of tensors: GGUF's and the checkpoint's. */

/** Tensors outside the layers. */
const outer: Readonly<Record<string, string>> = {
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

/** Experts in a module `moe` of the layer, stacked. */
export const expertLayer = (moe: string): LayerNames => ({
  ffn_gate_inp: `${moe}.gate`,
  ffn_gate_exps: `${moe}.switch_mlp.gate_proj`,
  ffn_up_exps: `${moe}.switch_mlp.up_proj`,
  ffn_down_exps: `${moe}.switch_mlp.down_proj`,
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
}

const at = (names: Readonly<Record<string, string>>, key: string) =>
  Object.hasOwn(names, key) ? names[key] : undefined;

const inverse = (names: Readonly<Record<string, string>>) =>
  Object.fromEntries(Object.entries(names).map(([theirs, ours]) => [ours, theirs]));

/** How the tensors of an architecture are named. */
export class TensorNames {
  readonly #layer: LayerNames;
  readonly #ofLayer: LayerNames;
  readonly #ofOuter = inverse(outer);
  readonly #experts: SingleExperts | undefined;
  readonly #parameters: LayerNames;
  readonly #ofParameters: LayerNames;

  constructor(layer: LayerNames, { experts, parameters = {} }: OtherNames = {}) {
    this.#layer = layer;
    this.#ofLayer = inverse(layer);
    this.#experts = experts;
    this.#parameters = parameters;
    this.#ofParameters = inverse(parameters);
  }

  /**
   * The path in the checkpoint of the module that has a tensor, and what the tensor is called there:
   * `blk.3.attn_q.weight` → `["model.layers.3.self_attn.q_proj", "weight"]`; null for a name that the architecture does
   * not have.
   */
  path(name: string): [path: string, kind: string] | null {
    const parts = /^(?:blk\.(\d+)\.)?([a-z_]+)(?:\.(\d+))?\.(weight|bias)$/.exec(name);
    if (!parts) return null;
    const [, layer, part, index, kind] = parts as unknown as [string, string?, string?, string?, string?];
    if (layer === undefined) {
      const place = index === undefined ? at(outer, part!) : undefined;
      return place === undefined ? null : [place, kind!];
    }
    const single = index === undefined ? at(this.#parameters, `${part}.${kind}`) : undefined;
    if (single !== undefined) {
      const end = single.lastIndexOf(".");
      return [`model.layers.${layer}.${single.slice(0, end)}`, single.slice(end + 1)];
    }
    const experts = index === undefined ? undefined : this.#experts;
    const place = index === undefined ? at(this.#layer, part!) : experts && at(experts.parts, part!);
    if (place === undefined) return null;
    const own = experts ? `${experts.path}.${index}.${place}` : place;
    return [`model.layers.${layer}.${own}`, kind!];
  }

  /** The other way round: a parameter's name in the checkpoint → GGUF's; null where it has none. */
  ofParameter(name: string): string | null {
    const single = /^model\.layers\.(\d+)\.(.+)$/.exec(name);
    const tensor = single && at(this.#ofParameters, single[2]!);
    if (tensor) return `blk.${single[1]}.${tensor}`;
    const parts = /^(?:model\.layers\.(\d+)\.)?(.+)\.(weight|bias)$/.exec(name);
    if (!parts) return null;
    const [, layer, path, kind] = parts as unknown as [string, string?, string?, string?];
    const own = at(layer === undefined ? this.#ofOuter : this.#ofLayer, path!);
    if (own === undefined) return null;
    return `${layer === undefined ? "" : `blk.${layer}.`}${own}.${kind}`;
  }
}
