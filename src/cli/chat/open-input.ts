/** How a chat is held: at a terminal with a line editor, or through pipes. */
import { isatty } from "node:tty";
import { isLaunched, isLead } from "../../mlx/group-environment";
import { coloursOf } from "../colour";
import { fromLead } from "../group";
import type { Output } from "../output";
import { banner } from "./banner";
import { completions } from "./complete";
import { LineEditor } from "./editor";
import { History } from "./history";
import { type Input, type InputSource, PipedInput } from "./input";

const stdin = 0;
const stderr = 2;

/** Columns of a terminal that does not tell. */
const usualColumns = 80;

export interface OpenedInput {
  input: InputSource;
  /** A person sits there: lines are edited on stderr, as stdout is for answers. */
  interactive: boolean;
}

/** What the first process of a group hears, on all of them. */
class LeadInput implements InputSource {
  /** @param own null where another process has the terminal */
  constructor(private readonly own: InputSource | null) {}

  next(): Promise<Input> {
    return fromLead(() => this.own!.next());
  }

  interrupt(): void {
    this.own?.interrupt?.();
  }

  close(): void {
    this.own?.close();
  }
}

/** As `openInput`, for all processes of a group. */
export async function openSharedInput(...args: Parameters<typeof openInput>): Promise<OpenedInput> {
  if (!isLaunched()) return openInput(...args);
  const own = isLead() ? openInput(...args) : null;
  return { input: new LeadInput(own?.input ?? null), interactive: await fromLead(() => own!.interactive) };
}

/** @param rows what the panel says, where there is a terminal */
function openInput(out: Output, rows: readonly (readonly [string, string])[], signal: AbortSignal): OpenedInput {
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
