/** Gemma 3n in GGUF files. */
import * as mx from "../../mlx";
import { normalQuantile } from "../../nn";
import { type AttentionType, type RopeFields, ropeOptions } from "../args";
import type { TensorChange } from "./changes";
import { decoder, precise } from "./decoder";
import { f32, flag, u32 } from "./facts";
import { sandwichLayer, TensorNames } from "./names";
import { noPlace } from "./rope";

const root = "model.language_model.";

/** llama.cpp knows these by heart: of the published models, the first layers are sparse, and the first have rows. */
const published = {
  altup_num_inputs: 4,
  altup_active_idx: 0,
  altup_correct_scale: true,
  final_logit_softcapping: 30,
  hidden_size_per_layer_input: 256,
  laurel_rank: 64,
};
const sparseLayers = 10;
const closedShare = 0.95;
const owningLayers = 20;

const closed = (layers: number) => Array.from({ length: layers }, (_, i) => (i < sparseLayers ? closedShare : 0));

interface TextConfig {
  hidden_size: number;
  num_hidden_layers: number;
  num_key_value_heads: number;
  num_kv_shared_layers: number;
  head_dim: number;
  vocab_size: number;
  intermediate_size: number | number[];
  sliding_window: number;
  layer_types: readonly AttentionType[];
  activation_sparsity_pattern?: readonly number[] | null;
  rope_parameters?: RopeFields["rope_parameters"];
  rope_local_base_freq: number;
}

/** Rows of the embedding for tokens that only other parts have: files have as many of both embeddings. */
const padded = (config: object): TensorChange => ({
  read: (x) => x,
  write(x) {
    const missing = (config as TextConfig).vocab_size - x.dim(0);
    return missing <= 0 ? x : mx.concatenate([x, mx.zeros([missing, x.dim(1)], x.dtype)], { axis: 0 });
  },
});

export const gemma3nFacts = decoder("gemma3n", {
  names: new TensorNames(
    {
      ...sandwichLayer,
      altup_correct_coef: "altup.correction_coefs",
      altup_predict_coef: "altup.prediction_coefs",
      altup_router: "altup.modality_router",
      altup_router_norm: "altup.router_norm",
      laurel_l: "laurel.linear_left",
      laurel_r: "laurel.linear_right",
      laurel_post_norm: "laurel.post_laurel_norm",
      inp_gate: "per_layer_input_gate",
      proj: "per_layer_projection",
      post_norm: "post_per_layer_input_norm",
    },
    {
      prefix: root,
      layers: "layers",
      parameters: { "altup_correct_scale.weight": "altup.correct_output_scale" },
      outer: {
        token_embd: "embed_tokens",
        output_norm: "norm",
        per_layer_token_embd: "embed_tokens_per_layer",
        per_layer_model_proj: "per_layer_model_projection",
        per_layer_proj_norm: "per_layer_projection_norm",
      },
    },
  ),
  changes: (config) => ({ [`${root}embed_tokens_per_layer`]: padded(config) }),
  stacked: () =>
    Object.fromEntries(
      [
        ["altup_proj.weight", "altup_projections"],
        ["altup_unembd_proj.weight", "altup_unembed_projections"],
      ].map(([name, list]) => [
        name,
        Array.from({ length: published.altup_num_inputs - 1 }, (_, i) => `${root}${list}.${i}.weight`),
      ]),
    ),
  idle(config) {
    const { num_hidden_layers: layers, num_kv_shared_layers: shared, ...sizes } = config as TextConfig;
    const rows = sizes.num_key_value_heads * sizes.head_dim;
    const sharing = Array.from({ length: shared }, (_, i) => layers - shared + i);
    return Object.fromEntries(
      sharing.flatMap((layer): [string, number[]][] => [
        [`blk.${layer}.attn_k.weight`, [rows, sizes.hidden_size]],
        [`blk.${layer}.attn_v.weight`, [rows, sizes.hidden_size]],
        [`blk.${layer}.attn_k_norm.weight`, [sizes.head_dim]],
      ]),
    );
  },
  windows: { period: 5, typeOf: (settings, index) => (settings as unknown as TextConfig).layer_types[index]! },
  ropeBase: 1_000_000,
  stretches: false,
  only: published,
  common: (config) => ({ intermediate_size: widthOf(config as TextConfig) }),
  read(file, common) {
    const layers = common.num_hidden_layers as number;
    return {
      num_kv_shared_layers: Math.max(layers - owningLayers, 0),
      vocab_size_per_layer_input: file.shape("per_layer_token_embd.weight")?.[0],
      rope_local_base_freq: precise(file.number("rope.freq_base_swa") ?? 10_000),
      activation_sparsity_pattern: closed(layers),
    };
  },
  write(_, config) {
    const args = config as TextConfig;
    const {
      num_hidden_layers: layers,
      num_kv_shared_layers: shared,
      rope_parameters,
      activation_sparsity_pattern,
    } = args;
    const shares = activation_sparsity_pattern ?? Array.from({ length: layers }, () => 0);
    if (shares.some((share, i) => share !== closed(layers)[i])) {
      noPlace('"activation_sparsity_pattern" that is not 0.95 in the first ten layers');
    }
    if (shared !== Math.max(layers - owningLayers, 0)) {
      noPlace(`"num_kv_shared_layers" ${shared} of ${layers} layers (not all but ${owningLayers})`);
    }
    const { base } = ropeOptions(
      { rope_parameters },
      { base: args.rope_local_base_freq, layerType: "sliding_attention" },
    );
    const types = Array.from({ length: layers }, (_, i) => args.layer_types[i] === "sliding_attention");
    return {
      "attention.sliding_window": u32(args.sliding_window),
      "attention.sliding_window_pattern": flag(types),
      "attention.shared_kv_layers": u32(shared),
      "rope.freq_base_swa": f32(base),
      "altup.active_idx": u32(published.altup_active_idx),
      "altup.num_inputs": u32(published.altup_num_inputs),
      embedding_length_per_layer_input: u32(published.hidden_size_per_layer_input),
      activation_sparsity_scale: f32(shares.map((share) => (share > 0 ? normalQuantile(share) : 0))),
    };
  },
});

/** llama.cpp has one width for all layers. */
function widthOf({ intermediate_size: width }: TextConfig): number {
  if (!Array.isArray(width)) return width;
  if (new Set(width).size > 1) noPlace('"intermediate_size" that differs between layers');
  return width[0]!;
}
