/** GGUF files of one layer that answer "hi" and the end of a turn, which their metadata does not name. */
import { ggufBytes, type RawGguf, type RawTensor, raw, u32, zeros } from "../gguf-file";
import { byteLetters, chainEnds, chatml, width } from "./checkpoints";

/** The ends of types of tokens. */
const [normal, control, userDefined, byte] = [1, 3, 4, 6];

type Entries = readonly (readonly [text: string, type: number])[];

function floats(name: string, dims: number[], data: Float32Array): RawTensor {
  return { name, dims, code: 0, data: new Uint8Array(data.buffer) };
}

const ones = (name: string, length: number) => floats(name, [length], new Float32Array(length).fill(1));

function parts(architecture: "llama" | "gemma3", entries: Entries, chain: readonly string[]): RawGguf {
  const ids = new Map(entries.map(([text], id) => [text, id]));
  const count = entries.length;
  const [embedding, head] = chainEnds(
    count,
    chain.map((text) => ids.get(text)!),
  );
  const key = (name: string) => `${architecture}.${name}`;
  const isGemma = architecture === "gemma3";
  return {
    metadata: [
      ["general.architecture", raw.text(architecture)],
      [key("context_length"), raw.u32(512)],
      [key("embedding_length"), raw.u32(width)],
      [key("block_count"), raw.u32(1)],
      [key("feed_forward_length"), raw.u32(32)],
      [key("attention.head_count"), raw.u32(2)],
      [key("attention.head_count_kv"), raw.u32(1)],
      [key("attention.key_length"), raw.u32(16)],
      [key("attention.value_length"), raw.u32(16)],
      [key("attention.layer_norm_rms_epsilon"), raw.f32(1e-6)],
      [key("rope.freq_base"), raw.f32(10_000)],
      isGemma
        ? [key("attention.sliding_window"), raw.u32(64)]
        : ([key("rope.dimension_count"), raw.u32(16)] as [string, ReturnType<typeof raw.u32>]),
      ["tokenizer.ggml.tokens", raw.texts(entries.map(([text]) => text))],
      [
        "tokenizer.ggml.token_type",
        raw.list(
          5,
          entries.map(([, type]) => u32(type)),
        ),
      ],
    ],
    tensors: [
      floats("token_embd.weight", [width, count], embedding),
      floats("output.weight", [width, count], head),
      ones("output_norm.weight", width),
      ones("blk.0.attn_norm.weight", width),
      ones("blk.0.ffn_norm.weight", width),
      zeros("blk.0.attn_q.weight", [width, 32]),
      zeros("blk.0.attn_k.weight", [width, 16]),
      zeros("blk.0.attn_v.weight", [width, 16]),
      zeros("blk.0.attn_output.weight", [32, width]),
      zeros("blk.0.ffn_gate.weight", [width, 32]),
      zeros("blk.0.ffn_up.weight", [width, 32]),
      zeros("blk.0.ffn_down.weight", [32, width]),
      ...(isGemma
        ? [
            ones("blk.0.attn_q_norm.weight", 16),
            ones("blk.0.attn_k_norm.weight", 16),
            ones("blk.0.post_attention_norm.weight", width),
            ones("blk.0.post_ffw_norm.weight", width),
          ]
        : []),
    ],
  };
}

/** Gemma 3's tokens: the metadata's end is `<eos>`, the turn's is `<end_of_turn>`. */
export function gemmaGguf(): Uint8Array {
  const marks = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"];
  const entries: Entries = [
    ...marks.map((text) => [text, control] as const),
    ["\n", userDefined],
    ...byteLetters.map((_, i) => [`<0x${i.toString(16).toUpperCase().padStart(2, "0")}>`, byte] as const),
    ...[..."▁abcdefghijklmnopqrstuvwxyz"].map((text) => [text, normal] as const),
  ];
  const gguf = parts("gemma3", entries, ["\n", "h", "i", "<end_of_turn>", "u", "s", "e", "r"]);
  gguf.metadata!.push(
    ["tokenizer.ggml.model", raw.text("llama")],
    ["tokenizer.ggml.pre", raw.text("default")],
    [
      "tokenizer.ggml.scores",
      raw.list(
        6,
        entries.map((_, i) => raw.f32(-i)[1]),
      ),
    ],
    ["tokenizer.ggml.bos_token_id", raw.u32(2)],
    ["tokenizer.ggml.eos_token_id", raw.u32(1)],
    ["tokenizer.ggml.unknown_token_id", raw.u32(3)],
    ["tokenizer.ggml.add_bos_token", raw.flag(true)],
    ["tokenizer.ggml.add_space_prefix", raw.flag(false)],
    [
      "tokenizer.chat_template",
      raw.text(
        "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m['role'] }}\n{{ m['content'] }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
      ),
    ],
  );
  return ggufBytes(gguf);
}

/** ChatML's: the metadata's end is `<|endoftext|>`, the turn's is `<|im_end|>`. */
function chatmlParts(): RawGguf {
  const entries: Entries = [
    ...byteLetters.map((text) => [text, normal] as const),
    ["hi", normal],
    ...["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map((text) => [text, control] as const),
  ];
  const gguf = parts("llama", entries, [byteLetters[10]!, "h", "i", "<|im_end|>", "u", "s", "e", "r"]);
  gguf.metadata!.push(
    ["tokenizer.ggml.model", raw.text("gpt2")],
    ["tokenizer.ggml.pre", raw.text("gpt-2")],
    ["tokenizer.ggml.eos_token_id", raw.u32(257)],
    ["tokenizer.ggml.add_bos_token", raw.flag(false)],
    ["tokenizer.ggml.merges", raw.texts(["h i"])],
    ["tokenizer.chat_template", raw.text(chatml)],
  );
  return gguf;
}

export const chatmlGguf = (): Uint8Array => ggufBytes(chatmlParts());

/** The same file cut in two, as gguf-split does. */
export function splitGguf(): Uint8Array[] {
  const { metadata, tensors } = chatmlParts();
  const half = Math.floor(tensors!.length / 2);
  const u16 = (value: number): [number, Uint8Array] => [2, new Uint8Array(new Uint16Array([value]).buffer)];
  return [0, 1].map((part) =>
    ggufBytes({
      metadata: [
        ...(part === 0 ? metadata! : metadata!.slice(0, 1)),
        ["split.no", u16(part)],
        ["split.count", u16(2)],
        ["split.tensors.count", [5, u32(tensors!.length)]],
      ],
      tensors: part === 0 ? tensors!.slice(0, half) : tensors!.slice(half),
    }),
  );
}
