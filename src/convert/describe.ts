/** What a checkpoint's configuration says of it, without loading it. */
import { z } from "zod";
import { contextLength } from "./config";
import { openSource } from "./source";

export interface CheckpointFacts {
  model_type: string | null;
  /** How the weights are packed; null where they are not, or nothing says so. */
  quantization: string | null;
  /** Type of what is not packed, where the configuration says so. */
  dtype: string | null;
  /** Tokens. */
  context_length: number | null;
}

const packing = z.object({ bits: z.number(), group_size: z.number().nullish(), mode: z.string().nullish() });

const foreign = z.object({ quant_method: z.string(), bits: z.number().nullish(), format: z.string().nullish() });

/** The facts; null for a folder without a configuration that can be read. */
export async function describeCheckpoint(folder: string): Promise<CheckpointFacts | null> {
  const source = await openSource(folder).catch(() => null);
  if (!source) return null;
  const { config } = source;
  const inner = (config.text_config ?? {}) as Record<string, unknown>;
  const text = (...values: unknown[]) => values.find((value) => typeof value === "string") ?? null;
  return {
    model_type: text(config.model_type) as string | null,
    quantization:
      packingIn(config.quantization) ?? foreignIn(config.quantization_config) ?? typesIn(source.elementTypes),
    dtype: text(config.torch_dtype, config.dtype, inner.torch_dtype, inner.dtype) as string | null,
    context_length: contextLength(config),
  };
}

/** "4-bit affine, group 64"; of layers that differ, all numbers of bits: "3/6-bit affine, group 64". */
function packingIn(value: unknown): string | null {
  const { data } = packing.safeParse(value);
  if (!data) return null;
  const layers = Object.values(value as object).flatMap((layer) => packing.safeParse(layer).data ?? []);
  const bits = [...new Set([data, ...layers].map((one) => one.bits))].sort((a, b) => a - b);
  const group = data.group_size ? `, group ${data.group_size}` : "";
  return `${bits.join("/")}-bit ${data.mode ?? "affine"}${group}`;
}

/** "12 tensors: 8 Q8_0, 4 F32": what a GGUF file holds. */
function typesIn(types: ReadonlyMap<string, number> | undefined): string | null {
  if (!types) return null;
  const counts = [...types].sort(([, a], [, b]) => b - a);
  const all = counts.reduce((sum, [, count]) => sum + count, 0);
  return `${all} ${all === 1 ? "tensor" : "tensors"}: ${counts.map(([name, count]) => `${count} ${name}`).join(", ")}`;
}

/** "awq, 4-bit": what other tools write. */
function foreignIn(value: unknown): string | null {
  const { data } = foreign.safeParse(value);
  if (!data) return null;
  return [data.quant_method, data.format, data.bits ? `${data.bits}-bit` : null].filter(Boolean).join(", ");
}
