/** What a stream has told of a model's calls: what comes piece by piece, and the rest once a call is whole. */
import type { CallPiece, ToolCall } from "../text/tools";
import type { Part } from "./generation";

/** `index` counts the calls of the answer. */
export type CallEvent =
  | { type: "start"; index: number; name: string; id: string | undefined }
  | { type: "arguments"; index: number; text: string }
  /** It is whole, or the answer ends in it. */
  | { type: "end"; index: number; call: { id: string | undefined; name: string; arguments: string } };

interface Told {
  index: number;
  id: string | undefined;
  name: string;
  arguments: string;
  isOver: boolean;
}

/** Characters of arguments in one event, where they come whole. */
const pieceLength = 64;

export class ToldCalls {
  #count = 0;
  /** Of the calls that are being written; by their places between the markers. */
  #open: Told[] = [];

  /** What is new with a part of the answer, the last one too. */
  *add(part: Part | { type: "end" }): Generator<CallEvent> {
    if (part.type === "call_pieces") for (const piece of part.pieces) yield* this.#piece(piece);
    else if (part.type === "tool_calls") {
      for (const [place, call] of part.calls.entries()) yield* this.#whole(call, this.#open[place]);
      // Those that the parser of the whole knows nothing of.
      yield* this.#endAll();
    } else yield* this.#endAll();
  }

  *#piece(piece: CallPiece): Generator<CallEvent> {
    if (piece.type === "start") {
      for (const told of this.#open) yield* this.#end(told);
      this.#open[piece.index] = yield* this.#start(piece);
    } else {
      const told = this.#open[piece.index]!;
      told.arguments += piece.text;
      yield { type: "arguments", index: told.index, text: piece.text };
    }
  }

  *#start({ name, id }: { name: string; id?: string }): Generator<CallEvent, Told> {
    const told = { index: this.#count++, id, name, arguments: "", isOver: false };
    yield { type: "start", index: told.index, name, id };
    return told;
  }

  *#whole(call: ToolCall, begun?: Told): Generator<CallEvent> {
    const told = begun ?? (yield* this.#start(call));
    if (told.isOver) return;
    // Equal keys are told of as they come, and the last counts.
    const rest = call.arguments.startsWith(told.arguments) ? call.arguments.slice(told.arguments.length) : "";
    for (let at = 0; at < rest.length; at += pieceLength) {
      yield { type: "arguments", index: told.index, text: rest.slice(at, at + pieceLength) };
    }
    told.arguments += rest;
    yield* this.#end(told);
  }

  *#end(told: Told): Generator<CallEvent> {
    if (told.isOver) return;
    told.isOver = true;
    const { index, id, name, arguments: text } = told;
    yield { type: "end", index, call: { id, name, arguments: text } };
  }

  *#endAll(): Generator<CallEvent> {
    for (const told of this.#open) yield* this.#end(told);
    this.#open = [];
  }
}
