/** What has been said, and the file that it can be kept in. */
import { readFile, realpath, stat, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { z } from "zod";
import { replaceFile } from "../../atomic-file";
import { ExitCode, UserError } from "../../errors";
import { neededHome } from "../../home";
import type { ChatMessage } from "../../text/chat-template";

/** Larger than any conversation that a model could take. */
const largest = 64 * 2 ** 20;

const format = "mlxlm chat";

const Message = z.object({
  role: z.enum(["system", "user", "assistant"]),
  content: z.string(),
  reasoning_content: z.string().optional(),
});

const SavedConversation = z.object({
  format: z.literal(format),
  version: z.literal(1),
  /** The model that gave the answers. */
  model: z.string(),
  messages: z.array(Message).refine((messages) => messages.every(({ role }, i) => role !== "system" || i === 0), {
    error: "a system message can only be the first",
  }),
});

export type Message = z.infer<typeof Message>;

export class Conversation {
  system: string | null = null;
  /** Questions and answers. */
  turns: Message[] = [];

  /** Everything that the model gets to see. */
  messages(): Message[] {
    return this.system === null ? this.turns : [{ role: "system", content: this.system }, ...this.turns];
  }

  /** Takes over another conversation's messages. */
  replace([first, ...others]: readonly Message[]): void {
    this.system = first?.role === "system" ? first.content : null;
    this.turns = first && first.role !== "system" ? [first, ...others] : others;
  }
}

/** The messages as chat templates take them. */
export const asChat = (messages: readonly Message[]): ChatMessage[] => messages.map((message) => ({ ...message }));

/** Path of a file as a person types it into a chat: a leading ~ is the home folder. */
export function pathOf(typed: string): string {
  return resolve(typed === "~" || typed.startsWith("~/") ? join(neededHome(), typed.slice(1)) : typed);
}

/**
 * Reads a saved conversation.
 * @throws UserError where there is none, or it is damaged
 */
export async function readConversation(typed: string): Promise<{ model: string; messages: Message[] }> {
  const path = pathOf(typed);
  const damaged = (problem: string, cause?: unknown) =>
    new UserError(`${path} is no saved conversation: ${problem}`, { hint: "/save writes one.", cause });
  const facts = await stat(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") throw new UserError(`there is no file ${path}`, { code: ExitCode.notFound });
    throw new UserError(`${path} cannot be read: ${error.message}`, { cause: error });
  });
  if (!facts.isFile()) throw damaged("it is no file");
  if (facts.size > largest) throw damaged(`it has ${facts.size} bytes`);
  const text = await readFile(path, "utf8").catch((error: Error) => {
    throw new UserError(`${path} cannot be read: ${error.message}`, { cause: error });
  });
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw damaged(text.trim() === "" ? "it is empty" : `it is not JSON (${(cause as Error).message})`, cause);
  }
  const parsed = SavedConversation.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  throw damaged(`${issue.path.length > 0 ? `"${issue.path.join(".")}": ` : ""}${issue.message}`);
}

/** The path of what is there under the name that a person typed; null where nothing is. */
export async function savedThere(typed: string): Promise<string | null> {
  return realpath(pathOf(typed)).catch(() => null);
}

/**
 * Writes a conversation, whole or not at all; only its owner can read the file.
 * @returns the file's path
 * @throws UserError where the file cannot be written, or is something else that would be lost
 */
export async function saveConversation(typed: string, model: string, messages: readonly Message[]): Promise<string> {
  const wanted = pathOf(typed);
  // A link stays one: what it leads to is replaced.
  const path = await realpath(wanted).catch(() => wanted);
  const exists = await stat(path).catch(() => null);
  if (exists) {
    await readConversation(path).catch((cause) => {
      throw new UserError(`${path} is there already and is no saved conversation`, {
        hint: "Take another name.",
        cause,
      });
    });
  }
  const text = `${JSON.stringify({ format, version: 1, model, messages }, null, 2)}\n`;
  await replaceFile(path, (temporary) => writeFile(temporary, text), { mode: 0o600 });
  return path;
}
