/** Qwen 4 Exp in GGUF files: Qwen 3.5's parts between readers of several streams, and one table of n-grams at most. */
import * as mx from "../../mlx";
import { eosOf, hashesOf, type NgramArgs, ngramHeads, rowDims } from "../qwen4-exp/ngrams";
import { convolution, shifted, type TensorChange } from "./changes";
import { decoder } from "./decoder";
import { type GgufDescription, type GgufFields, u32 } from "./facts";
import { fusedExperts, TensorNames } from "./names";
import {
  type HybridConfig,
  hybridExperts,
  hybridLayer,
  readExperts,
  readHybrid,
  readSections,
  sectionsField,
  spreadHeads,
  turningShare,
  writeExperts,
  writeHybrid,
} from "./qwen35";
import { noPlace } from "./rope";

interface Config extends HybridConfig, NgramArgs {
  hidden_act: string;
  output_gate_type?: string | null;
  hc_lowrank: number;
  ple_layer_ids?: number[] | null;
  indexer_n_heads: number;
  indexer_head_dim: number;
  indexer_compress_ratio: number;
}

const prefix = "language_model.";

/** Of a reader of streams, in a module of the layer or of the model. */
const reader = (theirs: string, ours: string) => ({
  [`${theirs}_norm`]: `${ours}.hc_norm`,
  [`${theirs}_down`]: `${ours}.input_mix_weight_down`,
  [`${theirs}_up`]: `${ours}.input_mix_weight_up`,
});

const connection = (theirs: string, ours: string) => ({
  ...reader(theirs, ours),
  [`${theirs}_inject`]: `${ours}.block_inject_weight`,
});

const lastReader = "model.hyper_connection_mixer";

const layer = {
  ...hybridLayer,
  ...hybridExperts,
  ...connection("hc_attn", "attn_hyper_connection"),
  ...connection("hc_ffn", "mlp_hyper_connection"),
  "indexer.q_norm": "self_attn.indexer.q_layernorm",
  "indexer.k_norm": "self_attn.indexer.k_layernorm",
  ple_key: "ple.key_proj",
  ple_value: "ple.value_proj",
  ple_norm_key: "ple.norm_key",
  ple_norm_query: "ple.norm_query",
  ple_norm_conv: "ple.norm_conv",
  ple_conv1d: "ple.conv1d",
};

/** Norms that count from one. */
const norms = [
  ...["attn_hyper_connection.hc_norm", "mlp_hyper_connection.hc_norm", "self_attn.q_norm", "self_attn.k_norm"],
  ...["self_attn.indexer.q_layernorm", "self_attn.indexer.k_layernorm"],
  ...["ple.norm_key", "ple.norm_query", "ple.norm_conv", `${prefix}${lastReader}.hc_norm`],
];

/** The layers with a table, from zero on. */
const tablesOf = ({ ple_layer_ids: numbers }: Config) => (numbers ?? []).map((number) => number - 1);

/** Fields of the n-grams: files have what hashes are made with. */
function writeTable(args: Config): GgufFields {
  const [index, ...others] = tablesOf(args);
  if (index === undefined) return {};
  if (others.length > 0) noPlace('"ple_layer_ids" with several layers');
  const dims = args.ple_embed_dim ?? args.hidden_size;
  if (dims !== args.hidden_size) noPlace(`"ple_embed_dim" ${dims} (not "hidden_size", ${args.hidden_size})`);
  const { factors, rows, starts } = hashesOf(args, 0);
  return {
    "ple.layers": u32([index]),
    "ple.ngram_size": u32(args.ngram_size),
    "ple.heads_per_ngram": u32(args.heads_per_ngram),
    "ple.conv_kernel": u32(args.ple_conv_kernel_size),
    "ple.eos_token_id": u32(eosOf(args)!),
    "ple.layer_multipliers": ["uint64", [...factors]],
    "ple.head_offsets": ["uint64", starts],
    "ple.head_vocab_sizes": ["uint64", rows],
    embedding_length_per_layer_input: u32(rowDims(args)),
  };
}

/** What hashes are made with comes from this, where a configuration says nothing else; files don't have it. */
const usualSeed = 1234;

function readTable(
  file: GgufDescription,
  { vocab_size, hidden_size, rms_norm_eps }: Readonly<Record<string, unknown>>,
) {
  const [index] = file.list("ple.layers") ?? [];
  if (index === undefined) return {};
  const [table = 0] = file.shape("per_layer_token_embd.weight") ?? [];
  const [sizes = [], said = []] = ["ple.head_vocab_sizes", "ple.layer_multipliers"].map((key) => file.list(key));
  const args = {
    ple_layer_ids: [index + 1],
    ngram_size: file.need("ple.ngram_size"),
    heads_per_ngram: file.need("ple.heads_per_ngram"),
    ple_conv_kernel_size: file.need("ple.conv_kernel"),
    ple_eos_token_id: file.need("ple.eos_token_id"),
    ngram_vocab_size_base: sizes[0] ?? 0,
    make_ngram_vocab_size_divisible_by: table,
    seed: usualSeed,
  };
  // A file may claim any sizes; hashes are made with primes from the first on.
  const isWhole = sizes.length === ngramHeads(args) && said.length === args.ngram_size;
  if (!isWhole || sizes.reduce((sum, count) => sum + count, 0) > table || sizes.some((count) => count < 2)) {
    file.wrong("its table of n-grams does not have the rows that it says");
  }
  const whole = { ...args, hidden_size, vocab_size, rms_norm_eps, hc_count: 1 } as NgramArgs;
  const { factors, rows } = hashesOf(whole, 0);
  if (rows.some((count, i) => count !== sizes[i]) || [...factors].some((factor, i) => Number(factor) !== said[i])) {
    file.wrong("the hashes of its table of n-grams are not those of a known seed");
  }
  return { ...args, ple_embed_dim: file.need("embedding_length_per_layer_input") * ngramHeads(whole) };
}

export const qwen4exp = () =>
  decoder("qwen4exp", {
    names: new TensorNames(layer, {
      parameters: { ssm_a: "linear_attn.A_log", "ssm_dt.bias": "linear_attn.dt_bias" },
      halves: fusedExperts("mlp"),
      outer: reader("output_hc", lastReader),
      prefix,
    }),
    places: (config) =>
      Object.fromEntries(
        tablesOf(config as Config).map((index) => [
          "per_layer_token_embd",
          `${prefix}model.layers.${index}.ple.ple_embedding.ngram_embedding`,
        ]),
      ),
    joined(config) {
      const { indexer_n_heads: heads, indexer_head_dim: width } = config as Config;
      return {
        "self_attn.indexer.index_qk_proj": {
          parts: ["indexer.q_proj", "indexer.k_proj"],
          movesRows: true,
          join: (parts) => mx.concatenate([...parts]),
          split: (x) => x.split([heads * width], 0),
        },
      };
    },
    changes: (config) => ({
      ...spreadHeads(config),
      ...Object.fromEntries(norms.map((norm): [string, TensorChange] => [norm, shifted(1)])),
      "ple.conv1d": convolution,
    }),
    ropeBase: 100_000,
    turning: ({ headDim, ...settings }) => Math.trunc(headDim * turningShare(settings as unknown as Config)),
    integers: {
      "hyper_connection.count": "hc_count",
      "hyper_connection.low_rank": "hc_lowrank",
      "attention.indexer.head_count": "indexer_n_heads",
      "attention.indexer.key_length": "indexer_head_dim",
      "attention.indexer.top_k": "indexer_budget",
    },
    read: (file, common) => ({
      ...readSections(file, common),
      ...readExperts(file),
      ...readHybrid(file),
      indexer_compress_ratio: Math.max(...(file.list("attention.compress_ratios") ?? [1])),
      output_gate_type: "sigmoid",
      ...readTable(file, common),
    }),
    write(settings) {
      const args = settings as unknown as Config;
      const gate = args.output_gate_type ?? args.hidden_act;
      if (gate !== "sigmoid") noPlace(`"output_gate_type" ${gate} (not sigmoid)`);
      const fields = writeHybrid(args);
      const whole = Array.from({ length: args.num_hidden_layers }, (_, index) =>
        args.layer_types
          ? args.layer_types[index] === "full_attention"
          : (index + 1) % args.full_attention_interval === 0,
      );
      return {
        "rope.dimension_sections": sectionsField(args),
        ...fields,
        ...writeExperts(args),
        ...writeTable(args),
        feed_forward_length: undefined,
        "attention.compress_ratios": u32(whole.map((is) => (is ? args.indexer_compress_ratio : 0))),
      };
    },
  });
