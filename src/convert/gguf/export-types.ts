/** What the tensors of a written file become: llama.cpp's mixtures, by its recipes (llama-quant.cpp). */
import type { WrittenType } from "./types";

/** Kinds of files that are written, by llama.cpp's names. */
export const exportTypes = ["F32", "F16", "BF16", "Q8_0", "Q6_K", "Q4_K_M", "Q4_0"] as const;

/** The same as flags have them. */
export const exportTypeNames = ["f32", "f16", "bf16", "q8_0", "q6_k", "q4_k_m", "q4_0"] as const;

export type ExportType = (typeof exportTypes)[number];

/** @param name as flags have it */
export const exportTypeOf = (name: (typeof exportTypeNames)[number] = "f16"): ExportType =>
  name.toUpperCase() as ExportType;

/** `general.file_type` */
export const fileTypes: Readonly<Record<ExportType, number>> = {
  F32: 0,
  F16: 1,
  Q4_0: 2,
  Q8_0: 7,
  Q4_K_M: 15,
  Q6_K: 18,
  BF16: 32,
};

/** Matrices that llama.cpp computes with in float32 only: gates of experts, convolutions, and small ones of some models. */
const precise =
  /position_embd|hc_(attn_|ffn_)?fn|compressor_ape|ffn_gate_inp|conv1d|shortconv\.conv|_norm\.weight$|time_mix_(lerp_fused|[wavg][12])|altup_(correct|predict)_coef|indexer\.proj/;

/** What is taken where rows are no whole blocks: a type with smaller ones. */
const smaller: Partial<Record<WrittenType, WrittenType>> = { Q4_K: "Q5_0", Q5_K: "Q5_1", Q6_K: "Q8_0" };

/** Numbers in a block. */
const blockOf = (type: WrittenType) => (type.endsWith("_K") ? 256 : type.startsWith("Q") ? 32 : 1);

export interface RecipeFacts {
  layers: number;
  /** How many experts a layer has; 0 for none. */
  experts: number;
  /** The head is the embedding. */
  isTied: boolean;
}

/** The first and the last eighth of the layers, and every third of the others. */
function deservesMore(layer: number, layers: number): boolean {
  const eighth = Math.floor(layers / 8);
  return layer < eighth || layer >= Math.floor((7 * layers) / 8) || (layer - eighth) % 3 === 2;
}

/** Of a matrix, by its name in the file. */
function recipe(name: string, type: ExportType, { layers, experts, isTied }: RecipeFacts): WrittenType {
  if (!type.startsWith("Q")) return type as WrittenType;
  const isHead = name === "output.weight" || (isTied && name === "token_embd.weight");
  if (type === "Q8_0") return "Q8_0";
  if (isHead) return "Q6_K";
  if (type !== "Q4_K_M") return type;
  const [, layer, part] = /^blk\.(\d+)\.(.+)\.weight$/.exec(name) ?? [];
  const more = layer !== undefined && deservesMore(Number(layer), layers);
  if (part === "attn_v") return experts === 8 ? "Q8_0" : more ? "Q6_K" : "Q4_K";
  if (part === "attn_k" && experts === 8) return "Q8_0";
  if (part === "attn_output" && experts === 8) return "Q5_K";
  if (part === "attn_qkv") return "Q5_K";
  if (part?.startsWith("ffn_down")) return more ? "Q6_K" : "Q4_K";
  return "Q4_K";
}

/** What a tensor becomes: vectors and what is no weight stay in float32. */
export function writtenTypeOf(
  name: string,
  shape: readonly number[],
  type: ExportType,
  facts: RecipeFacts,
): WrittenType {
  if (shape.length === 1 || !name.endsWith(".weight") || precise.test(name)) return "F32";
  const fits = (one: WrittenType) => shape.at(-1)! % blockOf(one) === 0;
  const wanted = recipe(name, type, facts);
  if (fits(wanted)) return wanted;
  const other = smaller[wanted];
  return other && fits(other) ? other : "F16";
}
