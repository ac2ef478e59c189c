/** GPT-2 and its relatives in GGUF files: positions have learned vectors, and one projection gives queries, keys and values. */
import { precise } from "./decoder";
import { f32, type GgufFacts, u32 } from "./facts";
import { TensorNames } from "./names";
import { noPlace } from "./rope";

interface Config {
  n_embd: number;
  n_head: number;
  n_layer: number;
  n_positions: number;
  n_inner?: number | null;
  layer_norm_epsilon: number;
  /** One head of keys and values for all; never of GPT-2. */
  multi_query?: boolean;
  attention_bias?: boolean;
  mlp_bias?: boolean;
}

/** Both have GELU by a hyperbolic tangent in llama.cpp. @param trunk the name of the checkpoint's trunk */
export const learnedPositions = (architecture: "gpt2" | "starcoder", trunk: "model" | "transformer"): GgufFacts => ({
  architecture,
  names: new TensorNames(
    {
      attn_norm: "ln_1",
      attn_qkv: "attn.c_attn",
      attn_output: "attn.c_proj",
      ffn_norm: "ln_2",
      ffn_up: "mlp.c_fc",
      ffn_down: "mlp.c_proj",
    },
    {
      layers: `${trunk}.h`,
      outer: { token_embd: `${trunk}.wte`, position_embd: `${trunk}.wpe`, output_norm: `${trunk}.ln_f` },
    },
  ),
  normOffset: 0,
  read: (file) => ({
    vocab_size: file.shape("token_embd.weight")?.[0] ?? file.wrong("there is no token_embd.weight"),
    n_embd: file.need("embedding_length"),
    n_head: file.need("attention.head_count"),
    n_layer: file.need("block_count"),
    n_positions: file.shape("position_embd.weight")?.[0] ?? file.wrong("there is no position_embd.weight"),
    n_inner: file.need("feed_forward_length"),
    layer_norm_epsilon: precise(file.need("attention.layer_norm_epsilon")),
    multi_query: file.number("attention.head_count_kv") === 1,
    // Older files repeat the embedding, in a type of its own.
    tie_word_embeddings: file.shape("output.weight") === undefined,
  }),
  write(config) {
    const { attention_bias = true, mlp_bias = true, multi_query = false, ...args } = config as Config;
    if (!attention_bias) noPlace('"attention_bias" false');
    if (!mlp_bias) noPlace('"mlp_bias" false');
    const fields = {
      context_length: u32(args.n_positions),
      embedding_length: u32(args.n_embd),
      block_count: u32(args.n_layer),
      feed_forward_length: u32(args.n_inner ?? 4 * args.n_embd),
      "attention.head_count": u32(args.n_head),
      "attention.head_count_kv": u32(multi_query ? 1 : args.n_head),
      "attention.layer_norm_epsilon": f32(args.layer_norm_epsilon),
    };
    return { fields, tensors: {} };
  },
});
