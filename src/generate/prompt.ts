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
  /** The user's message is the end of what a cache holds: give only what follows, from the text on. */
  continues?: boolean;
  /** What becomes of the whole text ahead of the tokenizer. */
  rewrite?: (text: string) => string;
}

const same = (text: string) => text;

/** Stands for the user's text when its place in the template is looked for. */
const marker = "<query>";

/**
 * Token ids of a prompt: through the chat template where there is one, else as plain text with special tokens.
 * @throws UserError for an empty text that no template surrounds
 */
export async function encodePrompt(tokenizer: Tokenizer, text: string, options: PromptOptions = {}): Promise<number[]> {
  const { system, prefill, raw = false, templateVariables: kwargs, continues = false, rewrite = same } = options;
  if (raw || !tokenizer.hasChatTemplate) {
    if (text === "") {
      throw new UserError("the prompt is empty", {
        code: ExitCode.usage,
        hint: "Give at least one word: --prompt TEXT",
      });
    }
    return tokenizer.encode(rewrite(text));
  }
  const write = (content: string) => {
    const messages: ChatMessage[] = [];
    if (system !== undefined) messages.push({ role: "system", content: system });
    messages.push({ role: "user", content });
    if (prefill === undefined) return tokenizer.applyChatTemplate(messages, { addGenerationPrompt: true, kwargs });
    messages.push({ role: "assistant", content: prefill });
    return tokenizer.applyChatTemplate(messages, { continueFinalMessage: true, kwargs });
  };
  const begin = continues ? Math.max(write(marker).indexOf(marker), 0) : 0;
  return tokenizer.encode(rewrite(write(text).slice(begin)), { addSpecialTokens: false });
}

/** Token ids of a text that is to be kept in a cache: a user's message that is still open, where there is a template. */
export function encodeOpenPrompt(tokenizer: Tokenizer, text: string): Promise<number[]> {
  if (!tokenizer.hasChatTemplate) return tokenizer.encode(text);
  return tokenizer.encodeChat([{ role: "user", content: text }], { continueFinalMessage: true });
}

/** @throws UserError for more tokens than the model takes, where that is known */
export function checkContext(tokens: number, contextLength: number | null): void {
  if (contextLength === null || tokens <= contextLength) return;
  throw new UserError(`the prompt has ${tokens} tokens, the model takes ${contextLength}`, {
    code: ExitCode.usage,
    hint: "Shorten the prompt, or take a model with a longer context.",
  });
}

/** The two-character escapes `\n` and `\t`, as shells pass them on. */
export function unescapePrompt(text: string): string {
  return text.replaceAll("\\n", "\n").replaceAll("\\t", "\t");
}
