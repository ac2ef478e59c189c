/** From an answer's tokens to its text: cut at stop texts, taken apart into thoughts, text and tool calls. */
import type { Detokenizer } from "../text/detokenizer";
import type { ResponseReader } from "../text/response";
import { opensThought } from "../text/thinking";
import type { Tokenizer } from "../text/tokenizer";
import type { CallPiece, ToolCall } from "../text/tools";
import { StopTexts } from "./stop-texts";

export type TextPart =
  | { type: "text"; text: string }
  /** What the model thinks before it answers. */
  | { type: "thought"; text: string }
  /** What is certain of calls that are being written, where asked for: `tool_calls` has them whole. */
  | { type: "call_pieces"; text: ""; pieces: CallPiece[] }
  | { type: "tool_calls"; calls: ToolCall[] }
  /** What stood between the markers of a tool call but is none. */
  | { type: "malformed"; text: string };

export interface TextOptions {
  /** Texts that end the answer; they are no part of it. Empty ones are ignored. */
  stopTexts?: readonly string[];
  /** Whether stop texts count within thoughts too. */
  stopsInThoughts?: boolean;
  /** Take thoughts and tool calls out of the text; else all of it is text, markers too. */
  takeApart?: boolean;
  /** The tools on offer, whose schemas give arguments their types. */
  tools?: readonly unknown[] | null;
  /** Tell of calls while they are written. */
  callPieces?: boolean;
}

export class AnswerText {
  readonly #detokenizer: Detokenizer;
  readonly #stops: StopTexts | null;
  readonly #reader: ResponseReader | null;

  constructor(tokenizer: Tokenizer, prompt: readonly number[], options: TextOptions) {
    this.#detokenizer = tokenizer.detokenizer();
    this.#stops = stopTexts(tokenizer, prompt, options);
    this.#reader = options.takeApart ? tokenizer.response(prompt, options) : null;
  }

  /** The stop text that has ended the answer; null while there is none. */
  get stoppedBy(): string | null {
    return this.#stops?.match ?? null;
  }

  /** Whether the model has called a tool, be it well or badly. */
  get hasCalled(): boolean {
    return this.#reader?.hasCalled ?? false;
  }

  push(token: number): TextPart[] {
    this.#detokenizer.addToken(token);
    return this.#read(this.#detokenizer.lastSegment());
  }

  /** What was held back: no more tokens will come. */
  end(): TextPart[] {
    this.#detokenizer.finalize();
    const parts = this.#read(this.#detokenizer.lastSegment());
    const held = this.#stops?.end() ?? "";
    if (held !== "") parts.push(...this.#apart(held));
    if (this.#reader) parts.push(...this.#reader.end().map(partOf));
    return parts;
  }

  #read(text: string): TextPart[] {
    if (text === "") return [];
    return this.#apart(this.#stops ? this.#stops.push(text) : text);
  }

  #apart(text: string): TextPart[] {
    if (text === "") return [];
    return this.#reader ? this.#reader.push(text).map(partOf) : [{ type: "text", text }];
  }
}

/** Finds stop texts in an answer to a prompt; null where there are none to find. */
export function stopTexts(
  tokenizer: Tokenizer,
  prompt: readonly number[],
  { stopTexts: texts = [], stopsInThoughts = true }: TextOptions,
): StopTexts | null {
  const wanted = texts.filter((text) => text !== "");
  if (wanted.length === 0) return null;
  const { thinking } = tokenizer;
  if (stopsInThoughts || !thinking) return new StopTexts(wanted, null);
  return new StopTexts(wanted, { ...thinking, open: opensThought(prompt, thinking) });
}

function partOf(part: ReturnType<ResponseReader["push"]>[number]): TextPart {
  if (part.type === "reasoning") return { type: "thought", text: part.text };
  return part.type === "calls" ? { type: "tool_calls", calls: part.calls } : (part as TextPart);
}
