/** Tensor parallelism: the tiny models of the parity suite, divided among processes, give what one process gives. */
import { describe, expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import { runRanks } from "./ranks";
import type { Comparison } from "./shard-rank";

const all = readdirSync(new URL("../fixtures/models/", import.meta.url)).map((file) => file.replace(".json", ""));

/** One of each kind of block that is divided. */
const kinds = ["llama", "qwen3_moe", "deepseek_v3", "gpt_oss", "olmo2", "phi3", "gpt_neox", "stablelm", "gemma4_text"];

/** Those with a state from token to token, and with masks or projections of all heads. */
const recurrent = ["mamba", "mamba2", "nemotron_h", "rwkv7", "qwen3_next", "qwen3_5", "kimi_linear", "kimi_k3"];
const joint = ["hf_olmo", "phi3small"];

async function compare(
  names: readonly string[],
  size: number,
  form: "float32" | "affine4" | "pipeline" | "lora" | "dora" | "fused" | "pooled" | "pooled4",
  backend?: "ring",
) {
  const ranks = await runRanks<Record<string, Comparison>>("shard-rank.ts", size, {
    backend: backend ?? "tcp",
    args: [form, ...names],
  });
  for (const results of ranks) {
    expect(Object.keys(results)).toEqual([...names]);
    for (const [name, { off, greedy }] of Object.entries(results)) {
      expect({ name, off: off < (form.endsWith("4") ? 2e-4 : 1e-4), greedy }).toEqual({
        name,
        off: true,
        greedy: true,
      });
    }
  }
  return ranks;
}

describe("logits and greedy tokens", () => {
  test("of every model on 2 ranks, each with little more than half of the weights", async () => {
    const [first] = await compare(all, 2, "float32");
    for (const [name, { share }] of Object.entries(first!)) {
      expect({ name, divided: share < 0.9 }).toEqual({ name, divided: true });
    }
  }, 120_000);

  test(
    "of each kind of block on 4 ranks, with fewer heads of keys than ranks",
    () => compare([...kinds.slice(0, 4), ...recurrent, ...joint], 4, "float32"),
    60_000,
  );

  test("on more ranks than there are heads", () => compare(["mamba2", "olmo2", "qwen3_5"], 5, "float32"), 60_000);

  test(
    "of each kind of block on 3 ranks, which no number of heads is divided by",
    () => compare([...kinds, ...recurrent, ...joint], 3, "float32"),
    60_000,
  );

  test(
    "of each kind of block on 2 ranks with 4-bit weights",
    () => compare([...kinds, ...recurrent.slice(0, -1), ...joint], 2, "affine4"),
    60_000,
  );

  test.each(["lora", "fused"] as const)(
    "of each kind of block on 2 ranks with adapters, %s",
    async (form) => {
      const [first] = await compare([...kinds, ...recurrent, ...joint], 2, form);
      for (const [name, { share }] of Object.entries(first!)) {
        expect({ name, divided: share < 0.9 }).toEqual({ name, divided: true });
      }
    },
    60_000,
  );

  test.each([
    ["pooled", ["qwen3_moe", "deepseek_v3", "qwen3_5", "hf_olmo"], 3],
    ["pooled4", ["llama", "gpt_oss", "phi3"], 2],
  ] as const)(
    "with an adapter that is loaded into the divided model, %s",
    async (form, names, size) => {
      const [first] = await compare(names, size, form);
      for (const [name, { share }] of Object.entries(first!)) {
        expect({ name, divided: share < 0.95 }).toEqual({ name, divided: true });
      }
    },
    60_000,
  );

  test("with DoRA, whose layers stay whole", () => compare(["llama", "mamba2"], 2, "dora"));

  test("of layers spread over 2 ranks", () => compare(["llama", "qwen3_moe", "gemma2", "deepseek_v3"], 2, "pipeline"));

  test("by MLX's ring", () => compare(["llama", "qwen3_moe"], 2, "float32", "ring"), 60_000);
});
