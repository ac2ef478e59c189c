/** Where a chat's prompt will be begun with again: behind its instructions, and behind its last message. */
import { commonLength } from "../../generate/prefix-store";
import type { ChatMessage, ChatOptions } from "../../text/chat-template";
import type { Tokenizer } from "../../text/tokenizer";

/** Shorter beginnings are read again as fast as they are found. */
const least = 16;

/**
 * Places in the prompt of a chat, as counts of tokens, that later prompts share: those of other chats with the same
 * instructions, and those of this chat as it goes on. Told by rendering such prompts, since templates may write a message
 * otherwise once it is not the last.
 */
export async function turnEnds(
  tokenizer: Tokenizer,
  messages: readonly ChatMessage[],
  prompt: readonly number[],
  options: ChatOptions,
): Promise<number[]> {
  const later = [...messages, { role: "assistant", content: "." }, { role: "user", content: "." }];
  const instructions = messages.slice(
    0,
    Math.max(
      0,
      messages.findIndex(({ role }) => role !== "system"),
    ),
  );
  const others = [...instructions, { role: "user", content: "\u2026" }];
  const places = await Promise.all([later, others].map((chat) => shared(tokenizer, chat, prompt, options)));
  return [...new Set(places)].filter((place) => place >= least && place < prompt.length).sort((a, b) => a - b);
}

async function shared(
  tokenizer: Tokenizer,
  messages: ChatMessage[],
  prompt: readonly number[],
  options: ChatOptions,
): Promise<number> {
  try {
    const other = await tokenizer.encodeChat(messages, { ...options, addGenerationPrompt: true });
    return commonLength(prompt, other);
  } catch {
    // A template that refuses such a chat tells of no place.
    return 0;
  }
}
