/** How a chat is held: at a terminal with a line editor, or through pipes. */
import { isatty } from "node:tty";
import { coloursOf } from "../colour";
import type { Output } from "../output";
import { banner } from "./banner";
import { completions } from "./complete";
import { LineEditor } from "./editor";
import { History } from "./history";
import { type InputSource, PipedInput } from "./input";

const stdin = 0;
const stderr = 2;

/** Columns of a terminal that does not tell. */
const usualColumns = 80;

export interface OpenedInput {
  input: InputSource;
  /** A person sits there: lines are edited on stderr, as stdout is for answers. */
  interactive: boolean;
}

/** @param rows what the panel says, where there is a terminal */
export function openInput(out: Output, rows: readonly (readonly [string, string])[], signal: AbortSignal): OpenedInput {
  if (out.json || !isatty(stdin) || !isatty(stderr)) {
    return { input: new PipedInput(Bun.stdin.stream(), signal), interactive: false };
  }
  const colours = coloursOf(stderr);
  for (const line of banner(rows, process.stderr.columns || usualColumns, colours)) out.info(line);
  const history = new History((message) => out.warn(message));
  const input = new LineEditor({
    terminal: process.stdin,
    screen: process.stderr,
    history,
    complete: completions,
    colours,
  });
  return { input, interactive: true };
}
