/** From what a user typed to the token ids that a model gets. */
import { ExitCode, UserError } from "../errors";
import type { ChatMessage } from "../text/chat-template";
import type { Tokenizer } from "../text/tokenizer";

export interface PromptOptions {
  /** The first message, where there is a chat template. */
  system?: string;
  /** The beginning of the answer: the model continues it. */
  prefill?: string;
  /** Feed the text as it is, even where the model has a chat template. */
  raw?: boolean;
  /** Further variables of the template. */
  templateVariables?: Record<string, unknown>;
}

/**
 * Token ids of a prompt: through the chat template where there is one, else as plain text with special tokens.
 * @throws UserError for an empty text that no template surrounds
 */
export async function encodePrompt(tokenizer: Tokenizer, text: string, options: PromptOptions = {}): Promise<number[]> {
  const { system, prefill, raw = false, templateVariables: kwargs } = options;
  if (raw || !tokenizer.hasChatTemplate) {
    if (text === "") {
      throw new UserError("the prompt is empty", {
        code: ExitCode.usage,
        hint: "Give at least one word: --prompt TEXT",
      });
    }
    return tokenizer.encode(text);
  }
  const messages: ChatMessage[] = [];
  if (system !== undefined) messages.push({ role: "system", content: system });
  messages.push({ role: "user", content: text });
  if (prefill === undefined) return tokenizer.encodeChat(messages, { addGenerationPrompt: true, kwargs });
  messages.push({ role: "assistant", content: prefill });
  return tokenizer.encodeChat(messages, { continueFinalMessage: true, kwargs });
}

/** The two-character escapes `\n` and `\t`, as shells pass them on. */
export function unescapePrompt(text: string): string {
  return text.replaceAll("\\n", "\n").replaceAll("\\t", "\t");
}
