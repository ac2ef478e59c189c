/** What a model answers, as it arrives: its thoughts, its text, its calls of tools. */
import { TextStates, type Transition, type Transitions } from "./text-states";
import type { CallPiece, ToolCall, ToolFormat } from "./tools";
import type { CallReader } from "./tools/call-reader";

export type ResponsePart =
  | { type: "text" | "reasoning"; text: string }
  /** What is certain of calls that are being written, ahead of them. */
  | { type: "call_pieces"; text: ""; pieces: CallPiece[] }
  | { type: "calls"; calls: ToolCall[] }
  /** What stood between the markers of a call but is none. */
  | { type: "malformed"; text: string };

/** A layout of answers of its own: where it begins, and markers beside those of thoughts and calls. */
export interface ResponseLayout {
  initial: string;
  transitions: Transitions;
}

/** Markers in the answers of one model. */
export interface ResponseMarkers {
  thinking: { start: string; end: string } | null;
  tools: ToolFormat | null;
  /** Markers of the model's markup around the answer, which are no part of it. */
  structural?: readonly string[];
  layout?: ResponseLayout | null;
}

export interface ResponseOptions {
  /** Whether the prompt has opened a thought. */
  inThought?: boolean;
  /** The tools on offer, whose schemas give arguments their types. */
  tools?: readonly unknown[] | null;
  /** Give out what is certain of calls while they are written. */
  callPieces?: boolean;
  /** Texts that end an answer; they are left out wherever they stand. */
  stopWords?: readonly string[];
}

/**
 * Reads one answer. Text and thoughts come out as soon as they are certain, a call when it is whole, and on demand as it
 * is written. Text in states that
 * only a layout knows, such as a message's header, is dropped.
 */
export class ResponseReader {
  /** The model has called a tool, be it well or badly. */
  hasCalled = false;

  readonly #states: TextStates;
  #call: string | null = null;
  #reader: CallReader | null = null;
  /** Whether pieces of the present calls have been given out. */
  #hasBegun = false;

  constructor(
    private readonly markers: ResponseMarkers,
    private readonly options: ResponseOptions = {},
  ) {
    const initial = markers.layout?.initial ?? (options.inThought ? "reasoning" : "normal");
    this.#states = new TextStates(transitionsOf(markers, options.stopWords), initial);
  }

  push(text: string): ResponsePart[] {
    return this.#states.push(text).flatMap(({ state, text }) => this.#read(state, text));
  }

  /**
   * The end of the answer; a call that was not finished is read as far as it goes.
   * @param keepsHeld whether text that was held back still counts: mlx-lm drops it where a stop token ended the answer,
   *     since it may be half of a stop word.
   */
  end({ keepsHeld = true } = {}): ResponsePart[] {
    const { state, text } = this.#states.flush();
    const parts = keepsHeld ? this.#read(state, text) : [];
    return this.#call ? [...parts, ...this.#finishCall()] : parts;
  }

  #read(state: string, text: string): ResponsePart[] {
    switch (state) {
      case "tool":
        this.#call = (this.#call ?? "") + text;
        return this.#pieces(text);
      case "reasoning":
        return text === "" ? [] : [{ type: "reasoning", text }];
      case "normal": {
        const call = this.#call === null ? [] : this.#finishCall();
        return text === "" ? call : [...call, { type: "text", text }];
      }
      default:
        return [];
    }
  }

  #pieces(text: string): ResponsePart[] {
    if (!this.options.callPieces || text === "") return [];
    this.#reader ??= this.markers.tools?.reader?.() ?? null;
    const pieces = this.#reader?.push(text) ?? [];
    if (pieces.length === 0) return [];
    this.#hasBegun = true;
    return [{ type: "call_pieces", text: "", pieces }];
  }

  #finishCall(): ResponsePart[] {
    const text = this.#call!;
    const hasBegun = this.#hasBegun;
    this.#call = this.#reader = null;
    this.#hasBegun = false;
    this.hasCalled = true;
    const calls = this.markers.tools?.parse(text, this.options.tools) ?? null;
    // A call that was cut has been given out as far as it goes.
    if (!calls && hasBegun) return [];
    return [calls ? { type: "calls", calls } : { type: "malformed", text }];
  }
}

/** Which markers lead from where to where. */
export function transitionsOf(markers: ResponseMarkers, stopWords: readonly string[] = []): Transitions {
  const { thinking, tools, structural = [], layout } = markers;
  const transitions: Record<string, Transition[]> = {};
  const add = (from: string, ...more: Transition[]) => {
    transitions[from] = [...(transitions[from] ?? []), ...more];
  };

  if (thinking) {
    add("normal", [thinking.start, "reasoning"]);
    add("reasoning", [thinking.end, "normal"]);
  }
  if (tools) {
    // A layout that leads to calls says where they begin.
    const leads = Object.values(layout?.transitions ?? {}).flat();
    if (!leads.some(([, next]) => next === "tool")) add("normal", [tools.start, "tool"]);
    if (thinking) add("reasoning", [tools.start, "tool"]);
    add("tool", ...(tools.end === "" ? [] : [[tools.end, "normal"] as const]));
  }
  for (const marker of structural) add("normal", [marker, "normal"]);
  for (const [from, more] of Object.entries(layout?.transitions ?? {})) add(from, ...more);
  for (const state of new Set([...Object.keys(transitions), "normal"])) {
    add(state, ...stopWords.map((word) => [word, state] as const));
  }
  return transitions;
}
