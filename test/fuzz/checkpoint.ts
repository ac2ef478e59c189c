/** Hostile checkpoint folders: config.json and safetensors that were sound, with a few parts changed. */
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as mx from "../../src/mlx";
import { createModel } from "../../src/models";
import { quantize } from "../../src/nn";
import { type Dice, dice, pick } from "./dice";
import { edgeNumbers, edgeSizes, joined, mutateBytes } from "./edges";

interface StoredTensor {
  dtype: string;
  shape: number[];
  data: Uint8Array;
}

interface Checkpoint {
  config: Record<string, unknown>;
  tensors: Map<string, StoredTensor>;
}

const common = {
  hidden_size: 32,
  num_hidden_layers: 1,
  intermediate_size: 64,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 16,
  rms_norm_eps: 1e-5,
  vocab_size: 8,
  rope_theta: 10_000,
  max_position_embeddings: 64,
  tie_word_embeddings: false,
};

const configs: Record<string, unknown>[] = [
  { model_type: "llama", ...common },
  { model_type: "qwen3", ...common },
  { model_type: "gemma3_text", ...common, sliding_window: 4, query_pre_attn_scalar: 16 },
  { model_type: "phi3", ...common, head_dim: undefined },
  { model_type: "mixtral", ...common, num_local_experts: 2, num_experts_per_tok: 1 },
];

const packed = { group_size: 32, bits: 4, mode: "affine" };

const names: Readonly<Record<string, string>> = {
  float32: "F32",
  uint32: "U32",
  bfloat16: "BF16",
  float16: "F16",
  uint8: "U8",
};

/** The sound checkpoints, each plain and packed. */
async function soundCheckpoints(): Promise<Checkpoint[]> {
  const made: Checkpoint[] = [];
  for (const config of configs) {
    for (const isPacked of [false, true]) {
      mx.random.seed(1);
      const model = await createModel(config, "the fuzzer");
      if (isPacked) quantize(model, { groupSize: 32, bits: 4 });
      const tensors = new Map<string, StoredTensor>();
      mx.scope(() => {
        for (const [name, tensor] of model.namedParameters()) {
          const data = mx.contiguous(tensor).view("uint8").toArray() as Uint8Array;
          tensors.set(name, { dtype: names[tensor.dtype]!, shape: [...tensor.shape], data: data.slice() });
        }
      });
      model.dispose();
      made.push({ config: isPacked ? { ...config, quantization: packed } : config, tensors });
    }
  }
  return made;
}

const widths: Readonly<Record<string, number>> = {
  F32: 4,
  F16: 2,
  BF16: 2,
  F64: 8,
  U8: 1,
  I8: 1,
  U32: 4,
  I32: 4,
  I64: 8,
  BOOL: 1,
  F8_E4M3: 1,
  C64: 8,
};

const product = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

function safetensors(tensors: ReadonlyMap<string, StoredTensor>, roll: Dice): Uint8Array {
  let end = 0;
  const header: Record<string, unknown> = { __metadata__: { format: "mlx" } };
  for (const [name, { dtype, shape, data }] of tensors) {
    const start = roll(3000) === 0 ? end + 8 : end;
    header[name] = { dtype, shape, data_offsets: [start, start + data.length] };
    end += data.length;
  }
  let text: Uint8Array = new TextEncoder().encode(JSON.stringify(header));
  if (roll(12) === 0) text = mutateBytes(text, roll);
  const length = new Uint8Array(new BigUint64Array([BigInt(text.length)]).buffer);
  return joined(length, text, ...[...tensors.values()].map(({ data }) => data));
}

/** What may stand in a field of config.json; those that JSON has no word for as Python writes them. */
function anyValue(roll: Dice): unknown {
  switch (roll(8)) {
    case 0:
      return pick(roll, edgeNumbers);
    case 1:
      return pick(roll, [null, true, "", "64", [], {}, [1], { a: 1 }]);
    case 2:
      return -pick(roll, edgeSizes);
    default:
      return pick(roll, edgeSizes);
  }
}

const ropeScaling = (roll: Dice) => ({
  rope_type: pick(roll, [
    "linear",
    "dynamic",
    "llama3",
    "yarn",
    "longrope",
    "su",
    "mrope",
    "proportional",
    "default",
    "x",
  ]),
  factor: pick(roll, [2, 8, ...edgeNumbers]),
  original_max_position_embeddings: pick(roll, [16, 64, ...edgeSizes]),
  ...(roll(2) === 0 ? { low_freq_factor: pick(roll, edgeNumbers), high_freq_factor: pick(roll, edgeNumbers) } : {}),
  ...(roll(2) === 0 ? { beta_fast: pick(roll, edgeNumbers), beta_slow: pick(roll, edgeNumbers) } : {}),
  ...(roll(2) === 0
    ? { long_factor: Array.from({ length: pick(roll, [0, 1, 7, 8, 9]) }, () => pick(roll, [1, ...edgeNumbers])) }
    : {}),
  ...(roll(3) === 0 ? { partial_rotary_factor: pick(roll, [0.5, ...edgeNumbers]) } : {}),
});

const quantization = (roll: Dice) => ({
  group_size: pick(roll, [16, 32, 64, 128, ...edgeSizes]),
  bits: pick(roll, [1, 2, 3, 4, 5, 6, 8, ...edgeSizes]),
  mode: pick(roll, ["affine", "affine", "mxfp4", "mxfp8", "nvfp4", "x"]),
});

/** Settings of other tools. */
const foreign = (roll: Dice) => ({
  quant_method: pick(roll, [
    "awq",
    "gptq",
    "fp8",
    "compressed-tensors",
    "modelopt",
    "mxfp4",
    "mxfp8",
    "bitnet",
    "quip",
  ]),
  bits: pick(roll, [4, 8, ...edgeSizes]),
  group_size: pick(roll, [32, 128, ...edgeSizes]),
  ...(roll(2) === 0 ? { weight_block_size: [pick(roll, [...edgeSizes, 1e300]), pick(roll, edgeSizes)] } : {}),
  ...(roll(2) === 0 ? { format: pick(roll, ["pack-quantized", "nvfp4-pack-quantized", "x"]) } : {}),
  ...(roll(3) === 0 ? { quant_algo: "NVFP4" } : {}),
});

/** Ends of the names that other tools give the parts of a packed layer. */
const parts = [
  "weight",
  "scales",
  "biases",
  "bias",
  "qweight",
  "qzeros",
  "g_idx",
  "weight_scale",
  "weight_packed",
  "weight_scale_inv",
  "weight_shape",
];

function mutateTensors(tensors: Map<string, StoredTensor>, roll: Dice): void {
  const name = pick(roll, [...tensors.keys()]);
  const { dtype, shape, data } = tensors.get(name)!;
  const sized = (kind: string, dims: number[]): StoredTensor => {
    const bytes = Math.min(product(dims) * widths[kind]!, 2 ** 20);
    return {
      dtype: kind,
      shape: dims,
      data: Uint8Array.from({ length: bytes }, (_, i) => data[i % Math.max(1, data.length)] ?? 0),
    };
  };
  switch (roll(7)) {
    case 0:
      tensors.delete(name);
      break;
    case 1:
      tensors.set(
        name,
        sized(
          dtype,
          shape.map((dim) => (roll(2) === 0 ? Math.min(pick(roll, edgeSizes), 512) : dim)),
        ),
      );
      break;
    case 2:
      tensors.set(name, sized(pick(roll, Object.keys(widths)), shape));
      break;
    case 3:
      tensors.set(name, sized(dtype, roll(2) === 0 ? [...shape, 1] : [product(shape)]));
      break;
    case 4: {
      const path = name.slice(0, name.lastIndexOf("."));
      tensors.set(
        `${path}.${pick(roll, parts)}`,
        sized(
          pick(roll, Object.keys(widths)),
          shape.map((dim) => (roll(2) === 0 ? Math.min(pick(roll, edgeSizes), 512) : dim)),
        ),
      );
      break;
    }
    case 5:
      tensors.delete(name);
      tensors.set(`${name.slice(0, name.lastIndexOf("."))}.${pick(roll, parts)}`, { dtype, shape, data });
      break;
    default: {
      const changed = mutateBytes(data, roll);
      const same = new Uint8Array(data.length);
      same.set(changed.subarray(0, data.length));
      tensors.set(name, { dtype, shape, data: same });
    }
  }
}

function mutateConfig(config: Record<string, unknown>, roll: Dice): void {
  const field = pick(roll, Object.keys(config));
  switch (roll(8)) {
    case 0:
      delete config[field];
      break;
    case 1:
      config[pick(roll, ["rope_scaling", "rope_parameters"])] = ropeScaling(roll);
      break;
    case 2:
      config.quantization = quantization(roll);
      break;
    case 3:
      config.quantization = {
        ...packed,
        [pick(roll, ["lm_head", "model.norm", "model.layers.0.mlp.down_proj", "model.embed_tokens"])]:
          roll(3) === 0 ? anyValue(roll) : quantization(roll),
      };
      break;
    case 4:
      delete config.quantization;
      config.quantization_config = foreign(roll);
      break;
    case 5:
      config[
        pick(roll, [
          "sliding_window",
          "layer_types",
          "partial_rotary_factor",
          "rope_local_base_freq",
          "sliding_window_pattern",
          "attention_bias",
          "eos_token_id",
          "text_config",
          "model_type",
        ])
      ] =
        roll(3) === 0
          ? pick(roll, ["llama", "mamba2", "bitnet", ["sliding_attention"], ["full_attention", "x"]])
          : anyValue(roll);
      break;
    default:
      config[field] = anyValue(roll);
  }
}

const tokenizer = {
  version: "1.0",
  added_tokens: [],
  pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
  decoder: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
  model: { type: "BPE", vocab: { a: 0, b: 1, ab: 2 }, merges: [["a", "b"]] },
};

/** Python's words for what JSON has none for. */
function pythonJson(value: unknown): string {
  const marked = JSON.stringify(value, (_, item) =>
    typeof item === "number" && !Number.isFinite(item) ? `\u0001${item}\u0001` : item,
  );
  return marked.replace(/"\\u0001(.*?)\\u0001"/g, "$1");
}

let sounds: Promise<Checkpoint[]> | undefined;

/** Writes the checkpoint of a seed into the folder, and returns its path. */
export async function hostileCheckpoint(seed: number, folder: string): Promise<string> {
  sounds ??= soundCheckpoints();
  const roll = dice(seed);
  const base = pick(roll, await sounds);
  const config = structuredClone(base.config);
  const tensors = new Map(base.tensors);
  for (let left = 1 + roll(2); left > 0; left--) {
    if (roll(2) === 0) mutateConfig(config, roll);
    else if (tensors.size > 0) mutateTensors(tensors, roll);
  }
  const index = join(folder, "model.safetensors.index.json");
  rmSync(index, { force: true });
  writeFileSync(join(folder, "tokenizer.json"), JSON.stringify(tokenizer));
  let text: Uint8Array = new TextEncoder().encode(pythonJson(config));
  if (roll(12) === 0) text = mutateBytes(text, roll);
  writeFileSync(join(folder, "config.json"), text);
  let bytes = safetensors(tensors, roll);
  if (roll(40) === 0) bytes = bytes.subarray(0, roll(bytes.length));
  writeFileSync(join(folder, "model.safetensors"), bytes);
  if (roll(20) === 0) {
    const file = () =>
      pick(roll, ["model.safetensors", "model-00001-of-00002.safetensors", "../x.safetensors", "", "."]);
    const map = Object.fromEntries(
      [...tensors.keys()].map((name) => [name, roll(4) === 0 ? file() : "model.safetensors"]),
    );
    writeFileSync(index, JSON.stringify({ weight_map: roll(5) === 0 ? anyValue(roll) : map }));
  }
  return folder;
}
