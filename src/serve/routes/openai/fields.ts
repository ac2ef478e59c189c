/** Fields that OpenAI's generating routes share. */
import { z } from "zod";
import { samplingFields, stopField } from "../../fields";

/** mlx-lm's names for the draft model that the server was started with. */
const ownDraft = z.literal("default_model");

export const generatingFields = {
  model: z.string().max(1000).optional(),
  stream: z.boolean().optional(),
  stream_options: z.strictObject({ include_usage: z.boolean().optional() }).optional(),
  n: z.int().min(1).max(64).optional(),
  max_tokens: z.int().min(1).max(1e9).optional(),
  ...samplingFields,
  stop: stopField,
  /** The name of an adapter that the operator allows. */
  adapters: z.string().optional(),
  draft_model: ownDraft.optional(),
  /** Who asks, and what for: written to the log. */
  user: z.string().max(1000).optional(),
};

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  prompt_tokens_details: { cached_tokens: number };
}

/** @param ends of the answers to one prompt, which counts once */
export function usageOf(
  ends: readonly { prompt_tokens: number; cached_tokens: number; generation_tokens: number }[],
): Usage {
  const [first] = ends;
  const prompt = first ? first.prompt_tokens + first.cached_tokens : 0;
  const completion = ends.reduce((sum, { generation_tokens }) => sum + generation_tokens, 0);
  return {
    prompt_tokens: prompt,
    completion_tokens: completion,
    total_tokens: prompt + completion,
    prompt_tokens_details: { cached_tokens: Math.max(0, ...ends.map(({ cached_tokens }) => cached_tokens)) },
  };
}

/** OpenAI's words for why an answer ended. */
export function finishReason(
  reason: "stop" | "length" | "tool_calls" | "interrupted",
): "stop" | "length" | "tool_calls" {
  return reason === "interrupted" ? "stop" : reason;
}

export const seconds = () => Math.floor(Date.now() / 1000);

export const newId = (prefix: string) => `${prefix}${crypto.randomUUID().replaceAll("-", "")}`;
