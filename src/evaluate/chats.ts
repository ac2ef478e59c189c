/** Prompts of tasks in the form of a model's chats. */
import type { Tokenizer } from "../text/tokenizer";
import type { RenderChat } from "./tasks/task-requests";

/** A chat that has begun its last turn is left open; all others end with the header of an answer. */
export function renderChats(tokenizer: Tokenizer, kwargs: Record<string, unknown> = {}): RenderChat {
  return (chat, begun) =>
    tokenizer.applyChatTemplate(chat, { addGenerationPrompt: !begun, continueFinalMessage: begun, kwargs });
}
