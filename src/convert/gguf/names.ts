/** Names of tensors: GGUF's and the checkpoint's. */

export type Kind = "weight" | "bias";

/** Tensors outside the layers. */
const outer: Readonly<Record<string, string>> = {
  token_embd: "model.embed_tokens",
  output_norm: "model.norm",
  output: "lm_head",
};

/** Parts of a layer. */
const inner: Readonly<Record<string, string>> = {
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
  ffn_gate_inp: "block_sparse_moe.gate",
  ffn_gate_exps: "block_sparse_moe.switch_mlp.gate_proj",
  ffn_up_exps: "block_sparse_moe.switch_mlp.up_proj",
  ffn_down_exps: "block_sparse_moe.switch_mlp.down_proj",
};

/** Layers with norms before and after each sublayer. */
const sandwich: Readonly<Record<string, string>> = {
  ...inner,
  post_attention_norm: "post_attention_layernorm",
  ffn_norm: "pre_feedforward_layernorm",
  post_ffw_norm: "post_feedforward_layernorm",
};

/** Experts that are tensors of their own. */
const expert: Readonly<Record<string, string>> = { ffn_gate: "w1", ffn_down: "w2", ffn_up: "w3" };

const at = (names: Readonly<Record<string, string>>, key: string) =>
  Object.hasOwn(names, key) ? names[key] : undefined;

const inverse = (names: Readonly<Record<string, string>>) =>
  Object.fromEntries(Object.entries(names).map(([theirs, ours]) => [ours, theirs]));

/** How the layers of an architecture are named. */
export class TensorNames {
  readonly #layer: Readonly<Record<string, string>>;
  readonly #ofLayer: Readonly<Record<string, string>>;
  readonly #ofOuter = inverse(outer);

  constructor({ hasSandwichNorms }: { hasSandwichNorms: boolean }) {
    this.#layer = hasSandwichNorms ? sandwich : inner;
    this.#ofLayer = inverse(this.#layer);
  }

  /**
   * A tensor's path in the checkpoint and the kind of its parameter: `blk.3.attn_q.weight` →
   * `["model.layers.3.self_attn.q_proj", "weight"]`; null for a name that the architecture does not have.
   */
  path(name: string): [path: string, kind: Kind] | null {
    const parts = /^(?:blk\.(\d+)\.)?([a-z_]+)(?:\.(\d+))?\.(weight|bias)$/.exec(name);
    if (!parts) return null;
    const [, layer, part, index, kind] = parts as unknown as [string, string?, string?, string?, Kind?];
    if (layer === undefined) {
      const place = index === undefined ? at(outer, part!) : undefined;
      return place === undefined ? null : [place, kind!];
    }
    const place = index === undefined ? at(this.#layer, part!) : at(expert, part!);
    if (place === undefined) return null;
    const own = index === undefined ? place : `block_sparse_moe.experts.${index}.${place}`;
    return [`model.layers.${layer}.${own}`, kind!];
  }

  /** The other way round: a parameter's name in the checkpoint → GGUF's; null where it has none. */
  ofParameter(name: string): string | null {
    const parts = /^(?:model\.layers\.(\d+)\.)?(.+)\.(weight|bias)$/.exec(name);
    if (!parts) return null;
    const [, layer, path, kind] = parts as unknown as [string, string?, string?, string?];
    const own = at(layer === undefined ? this.#ofOuter : this.#ofLayer, path!);
    if (own === undefined) return null;
    return `${layer === undefined ? "" : `blk.${layer}.`}${own}.${kind}`;
  }
}
