/** Small checkpoints whose weights are a formula, so that what they answer is known. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { dice } from "../fuzz/dice";
import { joined } from "../fuzz/edges";

export type Tensors = Record<string, { shape: number[]; data: Float32Array | Uint32Array }>;

export const chatml =
  "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}" +
  "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/** The width of the models' embeddings. */
export const width = 64;

const bytes = Array.from({ length: 256 }, (_, byte) => byte);
const isShown = (byte: number) => (byte > 32 && byte < 127) || (byte > 160 && byte < 173) || byte > 173;

/** GPT-2's letter for each byte. */
export const byteLetters = bytes.map((byte) =>
  String.fromCodePoint(isShown(byte) ? byte : 256 + bytes.filter((other) => !isShown(other)).indexOf(byte)),
);

/** tokenizer.json of one token a byte, and special ones behind them. */
export function byteLevelTokenizer(specials: readonly string[] = ["<|im_start|>", "<|im_end|>"]) {
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  return {
    version: "1.0",
    added_tokens: specials.map((content, i) => ({
      ...{ id: 256 + i, content, special: true, normalized: false },
      ...{ single_word: false, lstrip: false, rstrip: false },
    })),
    normalizer: null as unknown,
    pre_tokenizer: byteLevel as unknown,
    post_processor: null as unknown,
    decoder: byteLevel as unknown,
    model: { type: "BPE", vocab: Object.fromEntries(byteLetters.map((letter, byte) => [letter, byte])), merges: [] },
  };
}

export function safetensors(tensors: Tensors): Uint8Array {
  let end = 0;
  const header: Record<string, unknown> = { __metadata__: { format: "mlx" } };
  for (const [name, { shape, data }] of Object.entries(tensors)) {
    const dtype = data instanceof Float32Array ? "F32" : "U32";
    header[name] = { dtype, shape, data_offsets: [end, end + data.byteLength] };
    end += data.byteLength;
  }
  const text = new TextEncoder().encode(JSON.stringify(header));
  const length = new Uint8Array(new BigUint64Array([BigInt(text.length)]).buffer);
  const parts = Object.values(tensors).map(({ data }) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  return joined(length, text, ...parts);
}

/** A tensor of one number everywhere. */
export const filled = (shape: number[], value = 0) => ({
  shape,
  data: new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(value),
});

/** Random numbers between -1 and 1. */
export function random(shape: number[], seed: number) {
  const roll = dice(seed);
  const filledIn = filled(shape);
  filledIn.data.forEach((_, i) => {
    filledIn.data[i] = roll(2 ** 16) / 2 ** 15 - 1;
  });
  return filledIn;
}

/** Embeddings and a head by which each token of the chain is followed by the next one. */
export function chainEnds(vocabSize: number, chain: readonly number[]): [embedding: Float32Array, head: Float32Array] {
  const roll = dice(5);
  const embedding = Float32Array.from({ length: vocabSize * width }, () => (roll(2) === 0 ? 1 : -1));
  const head = new Float32Array(vocabSize * width);
  chain.slice(1).forEach((next, i) => {
    const from = chain[i]! * width;
    for (let at = 0; at < width; at++) head[next * width + at]! += embedding[from + at]!;
  });
  return [embedding, head];
}

export const llamaConfig = (vocabSize: number) => ({
  ...{ model_type: "llama", vocab_size: vocabSize, hidden_size: width, num_hidden_layers: 1, intermediate_size: 128 },
  ...{ num_attention_heads: 4, num_key_value_heads: 2, head_dim: 16, rms_norm_eps: 1e-6, rope_theta: 10_000 },
  ...{ max_position_embeddings: 2048, tie_word_embeddings: false, torch_dtype: "float32", eos_token_id: 257 },
});

/** A Llama of one layer that changes nothing, between the ends of a chain. */
export function chainWeights(vocabSize: number, chain: readonly number[]): Tensors {
  const [embedding, head] = chainEnds(vocabSize, chain);
  const block = "model.layers.0";
  return {
    "model.embed_tokens.weight": { shape: [vocabSize, width], data: embedding },
    [`${block}.input_layernorm.weight`]: filled([width], 1),
    [`${block}.self_attn.q_proj.weight`]: filled([64, width]),
    [`${block}.self_attn.k_proj.weight`]: filled([32, width]),
    [`${block}.self_attn.v_proj.weight`]: filled([32, width]),
    [`${block}.self_attn.o_proj.weight`]: filled([width, 64]),
    [`${block}.post_attention_layernorm.weight`]: filled([width], 1),
    [`${block}.mlp.gate_proj.weight`]: filled([128, width]),
    [`${block}.mlp.up_proj.weight`]: filled([128, width]),
    [`${block}.mlp.down_proj.weight`]: filled([width, 128]),
    "model.norm.weight": filled([width], 1),
    "lm_head.weight": { shape: [vocabSize, width], data: head },
  };
}

const newline = 10;

/** What the model of `chainFolder` answers: a byte of each kind, and the end of the turn. */
export const answered = "hey П";

const tokensOf = (text: string) => [...new TextEncoder().encode(text)];

export interface FolderParts {
  config?: object;
  tokenizer?: object;
  tokenizerConfig?: object;
  weights?: Tensors;
}

/** A Llama that answers every chat with `answered`. */
export function chainFolder(folder: string, parts: FolderParts = {}): string {
  return writeFolder(folder, {
    config: llamaConfig(258),
    tokenizer: byteLevelTokenizer(),
    weights: chainWeights(258, [newline, ...tokensOf(answered), 257]),
    ...parts,
  });
}

/** The files of a checkpoint. */
export function writeFolder(folder: string, { config, tokenizer, tokenizerConfig, weights }: FolderParts): string {
  mkdirSync(folder, { recursive: true });
  const write = (name: string, value: unknown) => writeFileSync(join(folder, name), JSON.stringify(value));
  write("config.json", config);
  write("tokenizer.json", tokenizer);
  write("tokenizer_config.json", {
    ...{ eos_token: "<|im_end|>", chat_template: chatml, tokenizer_class: "PreTrainedTokenizerFast" },
    ...tokenizerConfig,
  });
  if (weights) writeFileSync(join(folder, "model.safetensors"), safetensors(weights));
  return folder;
}
