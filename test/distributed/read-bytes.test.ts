/** What a tensor-parallel rank reads of the weight files: its part, and what is not divided. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openWeights } from "../../src/convert/load";
import { makeReady } from "../../src/convert/ready";
import { saveModel } from "../../src/convert/save";
import { demoFolder } from "../../src/demo/folder";
import * as mx from "../../src/mlx";
import { architectureOf, createModel } from "../../src/models";
import { quantize, shardModel } from "../../src/nn";
import { bytesInUse, countExactBytes } from "../exact-bytes";

countExactBytes();

const folder = mkdtempSync(join(tmpdir(), "mlxlm-read-bytes-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** Halves of its rows are as long as what is worth a read of its own. */
const dense = {
  hidden_size: 1024,
  num_hidden_layers: 1,
  intermediate_size: 2048,
  num_attention_heads: 8,
  num_key_value_heads: 4,
  vocab_size: 512,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  max_position_embeddings: 2048,
  tie_word_embeddings: false,
};
const experts = {
  head_dim: 128,
  num_experts: 2,
  num_experts_per_tok: 1,
  decoder_sparse_step: 1,
  mlp_only_layers: [],
  moe_intermediate_size: 1024,
  norm_topk_prob: true,
};

type Tensors = Map<string, mx.Tensor>;

type Change = (name: string, x: mx.Tensor, all: Tensors) => [name: string, x: mx.Tensor][];

/** Saves a file's tensors anew; `change` gives what takes the place of each. */
function rewrite(path: string, change: Change): void {
  mx.scope(() => {
    const { arrays } = mx.loadSafetensors(path);
    const all = new Map([...arrays].flatMap(([name, x]) => change(name, x, arrays)));
    mx.eval(all);
    rmSync(path);
    mx.saveSafetensors(path, all, { format: "mlx" });
  });
}

/** `change` gives what takes the place of one of a layer's experts. */
const rewriteExperts = (
  path: string,
  change: (layer: string, name: string, x: mx.Tensor, all: Tensors) => [name: string, x: mx.Tensor][],
): void =>
  rewrite(path, (name, x, all) => {
    const [before, behind] = name.split(".switch_mlp.") as [string, string?];
    return behind ? change(before, behind, x, all) : [[name, x]];
  });

/** Experts one by one, as the hub's checkpoints have them. */
const apart = (path: string) =>
  rewriteExperts(path, (layer, name, x) =>
    Array.from({ length: x.dim(0) }, (_, e) => [`${layer}.experts.${e}.${name}`, mx.contiguous(x.at(e))]),
  );

/** Gates and values of experts as one tensor, each of them turned. */
const joined = (path: string) =>
  rewriteExperts(path, (layer, name, x, all) => {
    if (name === "down_proj.weight") return [[`${layer}.experts.down_proj`, x.swapaxes(1, 2)]];
    if (name !== "gate_proj.weight") return [];
    const value = all.get(`${layer}.switch_mlp.up_proj.weight`)!;
    return [[`${layer}.experts.gate_up_proj`, mx.concatenate([x, value], { axis: 1 }).swapaxes(1, 2)]];
  });

/** What unpacks keys and values of latent attention, as one projection. */
const unpacking = (path: string) =>
  rewrite(path, (name, x, all) => {
    const [layer, part] = name.split(/\.(?=embed_q|unembed_out)/) as [string, string?];
    if (!part) return [[name, x]];
    if (part.startsWith("unembed_out")) return [];
    const heads = [x.swapaxes(1, 2), all.get(`${layer}.unembed_out.weight`)!];
    return [[`${layer}.kv_b_proj.weight`, mx.concatenate(heads, { axis: 1 }).flatten(0, 1)]];
  });

/** Queries, keys and values of each group of heads behind one another. */
const grouped = (path: string) =>
  rewrite(path, (name, x, all) => {
    const [layer, part] = name.split(/\.(?=[qkv]_proj)/) as [string, string?];
    if (!part) return [[name, x]];
    if (!part.startsWith("q_proj")) return [];
    const parts = ["q", "k", "v"].map((kind) => all.get(`${layer}.${kind}_proj.weight`)!.unflatten(0, [4, -1]));
    return [[`${layer}.qkv_proj.weight`, mx.concatenate(parts, { axis: 1 }).flatten(0, 1)]];
  });

/** Eight-bit floating point with scales of blocks. */
const eightBit = (path: string) =>
  rewrite(path, (name, x) => {
    if (!name.includes("proj")) return [[name, x]];
    const [M, N] = x.shape as [number, number];
    return [
      [name, mx.toFp8(x)],
      [`${name}_scale_inv`, mx.ones([M / 128, N / 128])],
    ];
  });

interface Case {
  config: object;
  bits?: number;
  rewrite?: (path: string) => void;
}

const cases: Record<string, Case> = {
  "plain layers": { config: { ...dense, model_type: "llama" } },
  "a tied head": { config: { ...dense, model_type: "llama", tie_word_embeddings: true } },
  "joined projections": { config: { ...dense, model_type: "phi3" } },
  "8-bit weights": { config: { ...dense, model_type: "llama", head_dim: 512, intermediate_size: 4096 }, bits: 8 },
  "stacked experts": { config: { ...dense, ...experts, model_type: "qwen3_moe" } },
  "experts one by one": { config: { ...dense, ...experts, model_type: "qwen3_moe" }, rewrite: apart },
  "experts of which two are joined": {
    config: { model_type: "qwen3_vl_moe", text_config: { ...dense, ...experts, model_type: "qwen3_vl_moe_text" } },
    rewrite: joined,
  },
  "latent attention": {
    config: {
      ...dense,
      model_type: "deepseek_v3",
      n_routed_experts: null,
      q_lora_rank: null,
      kv_lora_rank: 512,
      num_key_value_heads: 8,
    },
    rewrite: unpacking,
  },
  "projections that are joined by groups": {
    config: { ...dense, model_type: "hunyuan", attention_bias: false, use_qk_norm: false, use_cla: false },
    rewrite: grouped,
  },
  "8-bit floating point": {
    config: {
      ...dense,
      model_type: "llama",
      head_dim: 512,
      intermediate_size: 4096,
      quantization_config: { quant_method: "fp8", weight_block_size: [128, 128] },
    },
    rewrite: eightBit,
  },
};

async function save(name: string, { config, bits, rewrite }: Case): Promise<string> {
  const target = join(folder, name);
  mx.random.seed(3);
  const model = await createModel(config as never, name);
  const quantization = bits ? { groupSize: 64, bits } : null;
  if (quantization) quantize(model, quantization);
  const packed = quantization && { quantization: { group_size: 64, bits } };
  await saveModel(target, model, { ...config, ...packed } as never, { source: demoFolder() });
  rmSync(join(target, "model.safetensors.index.json"));
  rewrite?.(join(target, "model.safetensors"));
  return target;
}

const bytesRead = () => Number(/rchar: (\d+)/.exec(readFileSync("/proc/self/io", "utf8"))![1]);

/** Opens a rank's part, and says how many bytes were read for it and how many it has. */
async function open(path: string, rank: number, size: number) {
  const config = JSON.parse(readFileSync(join(path, "config.json"), "utf8"));
  const before = bytesRead();
  const { model } = await openWeights(path, config);
  // Its messages are never sent.
  if (size > 1) shardModel(model, { rank, size } as mx.distributed.Group);
  makeReady(model, await architectureOf(config));
  const read = bytesRead() - before;
  const bytes = model.namedParameters().reduce((sum, [, { nbytes }]) => sum + nbytes, 0);
  const memory = bytesInUse();
  model.dispose();
  return { read, bytes, memory: memory - bytesInUse() };
}

describe.skipIf(process.platform !== "linux")("a rank reads little more than it keeps", () => {
  test.each(Object.keys(cases))("of %s", async (name) => {
    const path = await save(name, cases[name]!);
    const whole = await open(path, 0, 1);
    expect(whole.read / whole.bytes).toBeLessThan(1.1);
    expect(whole.memory / whole.bytes).toBeLessThan(1.1);
    for (const rank of [0, 1]) {
      const part = await open(path, rank, 2);
      expect(part.bytes / whole.bytes).toBeLessThan(0.75);
      expect(part.read / part.bytes).toBeLessThan(1.1);
      expect(part.read / whole.read).toBeLessThan(0.75);
      expect(part.memory / part.bytes).toBeLessThan(1.1);
    }
    rmSync(path, { recursive: true });
  });
});
