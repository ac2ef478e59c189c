/** Caches of divided models: put together they are one process's, and divided again they are what they were. */
import { expect, test } from "bun:test";
import { readdirSync } from "node:fs";
import type { Moved } from "./caches-rank";
import type { Drafted } from "./drafted-rank";
import { runRanks } from "./ranks";

const all = readdirSync(new URL("../fixtures/models/", import.meta.url)).map((file) => file.replace(".json", ""));

/** One of each kind of cache, and of each kind of block that is divided. */
const attending = ["llama", "qwen3_moe", "deepseek_v3", "deepseek_v32", "gpt_oss", "phi3", "gpt_neox", "gemma3_text"];
const others = ["llama4", "bailing_moe_linear", "rwkv7", "recurrent_gemma", "gemma3n", "mimo_v2_flash", "lfm2"];
const recurrent = ["mamba2", "qwen3_5", "kimi_linear", "falcon_h1"];

/** @returns the models that were refused, each with the reason */
async function move(names: readonly string[], way: "heads" | "pipeline", size: number): Promise<Map<string, string>> {
  const ranks = await runRanks<Record<string, Moved>>("caches-rank.ts", size, { args: [way, ...names] });
  const refused = new Map<string, string>();
  for (const results of ranks) {
    expect(Object.keys(results)).toEqual([...names]);
    for (const [name, moved] of Object.entries(results)) {
      if ("refused" in moved) refused.set(name, moved.refused);
      else expect({ name, off: moved.off < 1e-4, back: moved.back }).toEqual({ name, off: true, back: 0 });
    }
  }
  return refused;
}

test("by heads, whose number is no multiple of the ranks; recurrent layers are refused", async () => {
  const refused = await move([...attending, ...others, ...recurrent], "heads", 3);
  expect([...refused.keys()]).toEqual(recurrent);
  expect(refused.get("mamba2")).toContain("the state of recurrent layers is divided by channels");
}, 60_000);

test("by layers, in all models but those whose layers share more than hidden states", async () => {
  const refused = await move(all, "pipeline", 2);
  expect(new Set(refused.values())).toEqual(
    new Set(["the model's layers cannot be spread over 2 ranks: they share more than hidden states"]),
  );
  const linked = [
    "rwkv7",
    "bailing_hybrid",
    "bailing_moe_linear",
    "recurrent_gemma",
    "iquestloopcoder",
    "deepseek_v41",
  ];
  expect(linked.filter((name) => !refused.has(name))).toEqual([]);
  expect(all.length - refused.size).toBeGreaterThan(90);
}, 60_000);

test("ranks whose layers forget otherwise go back together behind a wrong draft", async () => {
  const names = ["qwen3_5_moe", "granitemoehybrid", "gemma3_text", "llama"];
  const ranks = await runRanks<Record<string, Drafted>>("drafted-rank.ts", 2, { args: names });
  for (const results of ranks) {
    for (const [name, { expected, tokens, accepted }] of Object.entries(results)) {
      expect({ name, tokens, isDrafted: accepted > 0 }).toEqual({ name, tokens: expected, isDrafted: true });
    }
  }
  const alike = names.filter((name) => ranks[0]![name]!.alike);
  expect(alike).toContain("llama");
  expect(alike).not.toContain("qwen3_5_moe");
});
