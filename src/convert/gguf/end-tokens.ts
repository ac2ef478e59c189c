/** The tokens that end an answer. Files name one, often not the one that ends a turn of a chat. */
import type { Metadata } from "./metadata";

/** Texts of tokens that end a turn, a message or a document in the chat formats there are. */
const endTexts: ReadonlySet<string> = new Set([
  "</s>",
  "<|endoftext|>",
  "<|end_of_text|>",
  "<|im_end|>",
  "<|end|>",
  "<|eot_id|>",
  "<|eom_id|>",
  "<|eot|>",
  "<|eom|>",
  "<|return|>",
  "<|call|>",
  "<|end_of_turn|>",
  "<end_of_turn>",
  "<end_of_utterance>",
  "<EOT>",
  "_<EOT>",
  "[EOT]",
  "[EOS]",
  "<eos>",
  // Gemma 4.
  "<turn|>",
  "<|tool_response>",
  // DeepSeek.
  "<｜end▁of▁sentence｜>",
  // MiniMax M2.
  "[e~[",
  // Solar Open.
  "<|flush|>",
  "<|calls|>",
  // K2 Horizon.
  "<|ifm|im_end|>",
]);

/** In Harmony's format, and in Solar Open's, a message ends so, and the answer goes on with the next one. */
const messageEnd = "<|end|>";
const answerEnds = [
  ["<|return|>", "<|call|>"],
  ["<|calls|>", "<|flush|>"],
];

/** `tokenizer.ggml.token_type` of tokens that are no ordinary text. */
const specialTypes = [3, 4];

/**
 * Ids that end a text: those that the file names, and, as llama.cpp has it, the tokens whose texts are known for it.
 * Ids come in the order of their naming, then of the vocabulary.
 */
export function endTokenIds(metadata: Metadata): number[] {
  const named = ["eos", "eot", "eom"].map((name) => metadata.number(`tokenizer.ggml.${name}_token_id`));
  const tokens = metadata.texts("tokenizer.ggml.tokens") ?? [];
  const types = metadata.numbers("tokenizer.ggml.token_type") ?? [];
  const known = tokens.flatMap((text, id) => (endTexts.has(text) && specialTypes.includes(types[id]!) ? [id] : []));
  const texts = new Set(known.map((id) => tokens[id]));
  const hasMessages = answerEnds.some((ends) => ends.every((text) => texts.has(text)));
  const ends = known.filter((id) => !hasMessages || tokens[id] !== messageEnd);
  return [...new Set([...named.filter((id) => id !== undefined), ...ends])];
}
