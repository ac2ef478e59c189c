/** What every tool-call format is: its markers, and a parser of what stands between them. */
import type { CallReader } from "./call-reader";
import { dumps, type Value } from "./value";

export interface ToolCall {
  /** The call's id, where the format has one. */
  id?: string;
  name: string;
  /** JSON text, as OpenAI's API has it; ints of any size, and NaN and Infinity as Python writes them. */
  arguments: string;
}

export interface ToolFormat {
  /** The marker before the calls. */
  readonly start: string;
  /** The marker behind them; "" where calls go on to the end of the text. */
  readonly end: string;
  /**
   * The calls in the text between the markers, or null where it is malformed. Never throws.
   * @param tools the functions on offer, as OpenAI's API describes them: some formats take types from their schemas.
   */
  parse(text: string, tools?: readonly unknown[] | null): ToolCall[] | null;
  /** Reads calls as they are written, where the format shows what is final: joined, the pieces are what `parse` gives. */
  reader?(): CallReader;
}

export function toolCall(name: string, args: Value, id?: string): ToolCall {
  return { ...(id ? { id } : {}), name, arguments: dumps(args) };
}
