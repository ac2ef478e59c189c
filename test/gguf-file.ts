/** GGUF files byte by byte, sound or broken in one place. */

/** A value's type code and its bytes. */
export type RawValue = readonly [code: number, bytes: Uint8Array];

export interface RawTensor {
  name: string;
  /** As the file has it: the innermost dimension first. */
  dims: number[];
  code: number;
  data: Uint8Array;
  /** From the start of the data; behind the tensor before it, unless given. */
  offset?: number;
}

export interface RawGguf {
  magic?: string;
  version?: number;
  metadata?: [string, RawValue][];
  tensors?: RawTensor[];
  /** What the header claims, unless it is the truth. */
  counts?: [tensors: bigint, metadata: bigint];
}

const alignment = 32;

export const join = (...parts: Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts));

export function u32(value: number): Uint8Array {
  return new Uint8Array(new Uint32Array([value]).buffer);
}

export function u64(value: bigint | number): Uint8Array {
  return new Uint8Array(new BigUint64Array([BigInt(value)]).buffer);
}

export function text(value: string): Uint8Array {
  const bytes = new TextEncoder().encode(value);
  return join(u64(bytes.length), bytes);
}

/** Values as metadata. */
export const raw = {
  u32: (value: number): RawValue => [4, u32(value)],
  f32: (value: number): RawValue => [6, new Uint8Array(new Float32Array([value]).buffer)],
  flag: (value: boolean): RawValue => [7, Uint8Array.of(value ? 1 : 0)],
  text: (value: string): RawValue => [8, text(value)],
  list: (code: number, entries: Uint8Array[], length: bigint | number = entries.length): RawValue => [
    9,
    join(u32(code), u64(length), ...entries),
  ],
  texts: (values: string[]): RawValue => raw.list(8, values.map(text)),
};

const padding = (length: number) => new Uint8Array(-length & (alignment - 1));

export function ggufBytes({ magic = "GGUF", version = 3, metadata = [], tensors = [], counts }: RawGguf): Uint8Array {
  const [tensorCount, pairCount] = counts ?? [BigInt(tensors.length), BigInt(metadata.length)];
  let next = 0;
  const described = tensors.map(({ name, dims, code, data, offset }) => {
    const place = offset ?? next;
    next = place + data.length + padding(data.length).length;
    return join(text(name), u32(dims.length), ...dims.map(u64), u32(code), u64(place));
  });
  const header = join(
    new TextEncoder().encode(magic),
    u32(version),
    u64(tensorCount),
    u64(pairCount),
    ...metadata.map(([key, [code, bytes]]) => join(text(key), u32(code), bytes)),
    ...described,
  );
  return join(header, padding(header.length), ...tensors.flatMap(({ data }) => [data, padding(data.length)]));
}

/** A Llama of one layer whose every number is zero, with four tokens. */
export const tinyLlama: Required<Pick<RawGguf, "metadata" | "tensors">> = {
  metadata: [
    ["general.architecture", raw.text("llama")],
    ["llama.context_length", raw.u32(16)],
    ["llama.embedding_length", raw.u32(32)],
    ["llama.block_count", raw.u32(1)],
    ["llama.feed_forward_length", raw.u32(32)],
    ["llama.attention.head_count", raw.u32(2)],
    ["llama.attention.head_count_kv", raw.u32(1)],
    ["llama.attention.layer_norm_rms_epsilon", raw.f32(1e-5)],
    ["tokenizer.ggml.model", raw.text("gpt2")],
    ["tokenizer.ggml.pre", raw.text("gpt-2")],
    ["tokenizer.ggml.tokens", raw.texts(["a", "b", "ab", "<end>"])],
    ["tokenizer.ggml.token_type", raw.list(5, [1, 1, 1, 3].map(u32))],
    ["tokenizer.ggml.merges", raw.texts(["a b"])],
    ["tokenizer.ggml.eos_token_id", raw.u32(3)],
  ],
  tensors: [
    zeros("token_embd.weight", [32, 4]),
    zeros("output_norm.weight", [32]),
    zeros("blk.0.attn_norm.weight", [32]),
    zeros("blk.0.ffn_norm.weight", [32]),
    zeros("blk.0.attn_q.weight", [32, 32]),
    zeros("blk.0.attn_k.weight", [32, 16]),
    zeros("blk.0.attn_v.weight", [32, 16]),
    zeros("blk.0.attn_output.weight", [32, 32]),
    zeros("blk.0.ffn_gate.weight", [32, 32]),
    zeros("blk.0.ffn_up.weight", [32, 32]),
    zeros("blk.0.ffn_down.weight", [32, 32]),
  ],
};

/** A tensor of float32. */
export function zeros(name: string, dims: number[]): RawTensor {
  return { name, dims, code: 0, data: new Uint8Array(4 * dims.reduce((a, b) => a * b)) };
}
