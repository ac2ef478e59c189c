/** What a checkpoint's weights take, by the headers of their files: in memory, and of each token that is generated. */
import type { JsonObject } from "../json-file";

export interface WeightEntry {
  dtype: string;
  shape: readonly number[];
  bytes: number;
}

export interface WeightPlan {
  /** Bytes in memory. Parts for images and sound are left out. */
  resident: number;
  /** Bytes that one token reads: all but rows of the embedding and experts that are not chosen. */
  perToken: number;
  /** How many numbers the weights stand for, and how many of them a token uses, as far as shapes tell. */
  parameters: number;
  activeParameters: number;
  /** What most of the bytes are: "F32", "BF16", or "U32", packed. */
  dtype: string;
}

const experts = /\.(experts|switch_mlp)\.|\.experts_|\.experts$|_exps\./;
const embedding = /(^|\.)(embed_tokens|embedding|embeddings|wte|tok_embeddings|word_embeddings|token_embd)\./;
const head = /(^|\.)(lm_head|output)\./;

/** How many experts a token uses, of all. */
function expertShare(config: JsonObject): number {
  const fields = { ...(config.text_config as JsonObject | undefined), ...config };
  const number = (...names: string[]) =>
    names.map((name) => fields[name]).find((value): value is number => typeof value === "number" && value > 0);
  const chosen = number(
    "num_experts_per_tok",
    "num_experts_per_token",
    "moe_topk",
    "top_k_experts",
    "moe_top_k",
    "moe_k",
  );
  const all = number("num_local_experts", "n_routed_experts", "num_experts", "moe_num_experts", "num_routed_experts");
  return chosen !== undefined && all !== undefined ? Math.min(1, chosen / all) : 1;
}

/** Numbers of a packed tensor are counted by its bits. */
function countOf(name: string, { dtype, shape }: WeightEntry, bits: number): number {
  if (/\.(scales|biases|global_scale)$/.test(name)) return 0;
  const size = shape.reduce((product, dim) => product * dim, 1);
  return dtype === "U32" ? (size * 32) / bits : size;
}

/**
 * @param tensors by the checkpoint's names
 * @param leftOut whether a tensor belongs to a part that is not loaded
 */
export function weightPlan(
  tensors: ReadonlyMap<string, WeightEntry>,
  config: JsonObject,
  leftOut: (name: string) => boolean,
): WeightPlan {
  const loaded = [...tensors].filter(([name]) => !leftOut(name));
  const share = expertShare(config);
  const hasHead = loaded.some(([name]) => head.test(name));
  const bits = (config.quantization as { bits?: number } | undefined)?.bits ?? 32;
  const plan = { resident: 0, perToken: 0, parameters: 0, activeParameters: 0 };
  const byDtype = new Map<string, number>();
  for (const [name, entry] of loaded) {
    const count = countOf(name, entry, bits);
    plan.resident += entry.bytes;
    plan.parameters += count;
    byDtype.set(entry.dtype, (byDtype.get(entry.dtype) ?? 0) + entry.bytes);
    // Where there is no head, the embedding is the head too and is read whole.
    const used = embedding.test(name) && hasHead ? 0 : experts.test(name) && !/shared/.test(name) ? share : 1;
    plan.perToken += entry.bytes * used;
    plan.activeParameters += count * used;
  }
  const [dtype = "F32"] = [...byDtype].sort(([, a], [, b]) => b - a)[0] ?? [];
  return { ...plan, dtype };
}
