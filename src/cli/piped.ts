/** A prompt's text from stdin, where it is there without being asked for, and no more of it than a model can take. */
import { fstatSync } from "node:fs";
import { ExitCode, UserError } from "../errors";
import { checkRoom } from "../room";

const stdin = 0;

/** For a pipe or a file; not for a terminal, nor for /dev/null. */
export function hasPipedText(): boolean {
  try {
    const facts = fstatSync(stdin);
    return facts.isFIFO() || facts.isFile() || facts.isSocket();
  } catch {
    return false;
  }
}

/** For a file that somebody named, `< question.txt`: an empty one is a mistake, where an empty pipe is often no wish at all. */
export function isFileOnStdin(): boolean {
  try {
    return fstatSync(stdin).isFile();
  } catch {
    return false;
  }
}

/** @throws UserError (usage) for a prompt that says nothing: a template would make one of it all the same */
export function checkPromptText(text: string): void {
  if (text.trim() !== "") return;
  throw new UserError("the prompt is empty", { code: ExitCode.usage, hint: "Give at least one word: --prompt TEXT" });
}

/** The longest tokens of vocabularies are runs of spaces; texts have fewer bytes a token by far. */
const mostBytesOfToken = 256;

/** Of a model that does not tell its context. */
const mostBytes = 2 ** 30;

/** Bytes of memory that a byte of text takes while it becomes tokens. */
const memoryOfByte = 220;

/**
 * @param available bytes of memory that may be taken
 * @throws UserError (usage) for a text that has more tokens than the model takes, whatever they are: none is made
 *     then; (exit code 5) for one that the memory has no room for
 */
export function checkPromptLength(
  bytes: number,
  contextLength: number | null,
  available = Number.POSITIVE_INFINITY,
): void {
  const hint = "Shorten the prompt.";
  checkRoom(bytes * memoryOfByte, available, `a prompt of ${(bytes / 1e6).toFixed(1)} MB`, hint);
  const most = contextLength === null ? mostBytes : contextLength * mostBytesOfToken;
  if (bytes <= most) return;
  const limit = contextLength === null ? `${most} bytes at most` : `${contextLength} tokens`;
  throw new UserError(`the prompt has ${(bytes / 1e6).toFixed(1)} MB or more, the model takes ${limit}`, {
    code: ExitCode.usage,
    hint: "Shorten the prompt, or take a model with a longer context.",
  });
}

/** All of stdin. @throws UserError as `checkPromptLength`, as soon as there is too much */
export async function pipedText(
  contextLength: number | null,
  available?: number,
  stream: AsyncIterable<Uint8Array> = Bun.stdin.stream(),
): Promise<string> {
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const part of stream) {
    bytes += part.length;
    checkPromptLength(bytes, contextLength, available);
    parts.push(part);
  }
  return Buffer.concat(parts).toString("utf8");
}
