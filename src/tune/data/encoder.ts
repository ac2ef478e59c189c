/** From a record to tokens: a prompt with its completion, a chat, or a text, as the fields tell. */
import type { Row } from "../../data/rows";
import { ExitCode, UserError } from "../../errors";
import type { ChatMessage } from "../../text/chat-template";
import type { Tokenizer } from "../../text/tokenizer";

/** Names of the fields that records may have. */
export interface Features {
  prompt: string;
  completion: string;
  chat: string;
  text: string;
}

/** Where nobody says otherwise. */
export const usualFeatures: Features = { prompt: "prompt", completion: "completion", chat: "messages", text: "text" };

export interface Encoded {
  tokens: readonly number[];
  /** How many of them, at the begin, have no loss. */
  offset: number;
}

/** @param where the record is found, for errors */
export type Encoder = (row: Row, where: string) => Promise<Encoded>;

const hint = 'Records are {"text": …}, {"messages": […]} or {"prompt": …, "completion": …}.';

/**
 * How records are encoded that are of the first one's kind.
 * @param masked only answers have a loss
 * @throws UserError where that is of no known kind, or has no prompt to mask
 */
export function encoderFor(
  first: Row,
  where: string,
  tokenizer: Tokenizer,
  { features, masked }: { features: Features; masked: boolean },
): Encoder {
  const { prompt, completion, chat, text } = features;
  if (prompt in first && completion in first) {
    return (row, where) => {
      const messages = [
        { role: "user", content: textOf(row, prompt, where) },
        { role: "assistant", content: textOf(row, completion, where) },
      ];
      return encodeChat(tokenizer, messages, toolsOf(row, where), masked, where);
    };
  }
  if (chat in first) {
    return (row, where) => encodeChat(tokenizer, messagesOf(row, chat, where), toolsOf(row, where), masked, where);
  }
  if (!(text in first)) {
    const known = [`${prompt} and ${completion}`, chat, text].join("; ");
    throw new UserError(`${where}: a record needs one of: ${known}. It has ${shownNames(first)}`, {
      hint: "Other names are told by settings: prompt_feature, completion_feature, chat_feature, text_feature.",
    });
  }
  if (masked) {
    throw new UserError("a dataset of texts has no prompts to mask", {
      code: ExitCode.usage,
      hint: "Leave out --mask-prompt, or take chats or prompts with completions.",
    });
  }
  const eos = tokenizer.eosToken === null ? null : tokenizer.idOf(tokenizer.eosToken);
  return async (row, where) => {
    const tokens = await tokenizer.encode(textOf(row, text, where));
    return { tokens: eos === null || tokens.at(-1) === eos ? tokens : [...tokens, eos], offset: 0 };
  };
}

/** The names of a row's fields, as far as a person reads them. */
function shownNames(row: Row): string {
  const names = Object.keys(row).map((name) => (name.length > 40 ? `${name.slice(0, 40)}…` : name));
  return names.length > 20 ? `${names.slice(0, 20).join(", ")} and ${names.length - 20} more` : names.join(", ");
}

/** A value as it stands in an error. */
const shown = (value: unknown) => (value === undefined ? "missing" : JSON.stringify(value)?.slice(0, 60));

function textOf(row: Row, name: string, where: string): string {
  const value = row[name];
  if (typeof value === "string") return value;
  throw new UserError(`${where}: "${name}" must be a text, but is ${shown(value)}`, { hint });
}

function messagesOf(row: Row, name: string, where: string): ChatMessage[] {
  const value = row[name];
  const wrong = (problem: string) =>
    new UserError(`${where}: ${problem}`, { hint: 'A message is {"role": "user", "content": "…"}.' });
  if (!Array.isArray(value)) throw wrong(`"${name}" must be a list of messages, but is ${shown(value)}`);
  if (value.length === 0) throw wrong(`"${name}" has no message`);
  const at = value.findIndex((one) => typeof one?.role !== "string");
  if (at < 0) return value;
  throw wrong(`message ${at + 1} of "${name}" must be an object with a role, but is ${shown(value[at])}`);
}

/** Tables that cannot hold lists of any shape hold their JSON. */
function toolsOf({ tools }: Row, where: string): unknown[] | null {
  if (tools === undefined || tools === null) return null;
  let value = tools;
  if (typeof tools === "string") {
    try {
      value = JSON.parse(tools);
    } catch {
      value = tools;
    }
  }
  if (Array.isArray(value)) return value;
  throw new UserError(`${where}: "tools" must be a list of functions, but is ${shown(tools)}`, {
    hint: 'A function is {"type": "function", "function": {"name": …, "parameters": …}}.',
  });
}

async function encodeChat(
  tokenizer: Tokenizer,
  messages: ChatMessage[],
  tools: unknown[] | null,
  masked: boolean,
  where: string,
): Promise<Encoded> {
  try {
    const tokens = await tokenizer.encodeChat(messages, { tools });
    if (!masked) return { tokens, offset: 0 };
    const addGenerationPrompt = messages.at(-1)!.role === "assistant";
    const prompt = await tokenizer.encodeChat(messages.slice(0, -1), { tools, addGenerationPrompt });
    return { tokens, offset: prompt.length };
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    throw new UserError(`${where}: ${error.message}`, { code: error.code, hint: error.hint, cause: error });
  }
}
