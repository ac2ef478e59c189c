/** Chats that code lays out instead of a template, by chat_template_type of tokenizer_config.json. */
import { ExitCode, UserError } from "../errors";
import type { ChatMessage, ChatOptions } from "./chat-template";
import { renderDeepseekV32, Unfit } from "./deepseek-v32";
import type { ResponseLayout } from "./response";

export interface CodedChat {
  /** Writes the prompt; without it the Jinja template does. */
  render?: (messages: readonly ChatMessage[], options: ChatOptions) => string;
  /** How answers are laid out, where that is not text between markers alone. */
  layout?: ResponseLayout;
}

/**
 * A turn of Muse Spark's is several messages, each with a header that says to whom it goes: to itself, which is a
 * thought, to a tool, or to the user.
 */
const MUSE_SPARK: ResponseLayout = {
  initial: "header",
  transitions: {
    header: [
      ["to=self<|message|>", "reasoning"],
      ["to=user<|message|>", "normal"],
      ["to=commentary<|message|>", "normal"],
      ["<atem:function_calls>", "tool"],
    ],
    reasoning: [["<|eom|>", "header"]],
    normal: [
      ["<|eom|>", "header"],
      ["<|eot|>", "normal"],
    ],
  },
};

const CODED_CHATS: Record<string, CodedChat> = {
  deepseek_v32: { render: renderDeepseekV32 },
  muse_spark: { layout: MUSE_SPARK },
};

/** @throws UserError for a type that is not known. */
export function codedChat(type: string, owner: string): CodedChat {
  if (Object.hasOwn(CODED_CHATS, type)) return CODED_CHATS[type]!;
  throw new UserError(`${owner} lays its chats out by code that is not known: chat_template_type is "${type}".`, {
    code: ExitCode.notFound,
    hint: `Known types: ${Object.keys(CODED_CHATS).join(", ")}. Or give the prompt as plain text.`,
  });
}

/** Renders by code. @throws UserError that says what is wrong with the messages. */
export function renderByCode(
  render: NonNullable<CodedChat["render"]>,
  messages: readonly ChatMessage[],
  options: ChatOptions,
  owner: string,
): string {
  try {
    return render(messages, options);
  } catch (cause) {
    if (!(cause instanceof Unfit || cause instanceof RangeError)) throw cause;
    const problem = cause instanceof Unfit ? cause.message : "they are nested too deep";
    throw new UserError(`The chat format of ${owner} has no place for these messages: ${problem}.`, { cause });
  }
}
