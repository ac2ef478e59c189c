/** What the tests of `mlxlm chat` share: its command line, and what Python mlx-lm answers. */
import { join } from "node:path";
import { fixture } from "./parity/fixtures";

export const main = join(import.meta.dir, "../cmd/main.ts");

/** The command of a chat with the demo model. */
export const chat = (...words: string[]) => [process.execPath, main, "chat", "--model", "demo", ...words];

export interface Conversation {
  system: string | null;
  turns: Turn[];
}

interface Turn {
  question: string;
  answer: string;
}

/** What Python mlx-lm answers, each time from the whole conversation and an empty cache. */
export const conversations = fixture<Conversation[]>("chat.json");

interface Run {
  code: number;
  out: string;
  problems: string;
}

/** Runs a chat with lines from a pipe. @param stateHome the folder that holds its history */
export async function runChat(stateHome: string, stdin: string, ...words: string[]): Promise<Run> {
  const child = Bun.spawn(chat(...words), {
    stdin: new Blob([stdin]),
    stdout: "pipe",
    stderr: "pipe",
    env: { ...process.env, HF_HUB_OFFLINE: "1", XDG_STATE_HOME: stateHome },
  });
  const [out, problems, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { code, out, problems };
}
