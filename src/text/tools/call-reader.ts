/** Calls of tools while they are being written: their names, and what they are given piece by piece. */
import { JsonPieces } from "./json-pieces";

/** Something new of a call; `index` counts the calls between two markers. */
export type CallPiece =
  | { type: "start"; index: number; name: string; id?: string }
  | { type: "arguments"; index: number; text: string };

/** Reads what stands between the markers of calls, as it comes. */
export interface CallReader {
  push(text: string): CallPiece[];
}

/** The arguments of one call after the other. */
class Arguments {
  #json: JsonPieces | null = null;
  #index = -1;

  /** @param pieces what is new goes there */
  begin(pieces: CallPiece[], name: string, id?: string): void {
    this.#index++;
    this.#json = new JsonPieces();
    pieces.push({ type: "start", index: this.#index, name, ...(id && { id }) });
  }

  /** Whether they are being read. */
  get isOpen(): boolean {
    return this.#json?.state === "open";
  }

  get isFailed(): boolean {
    return this.#json?.state === "failed";
  }

  push(character: string): boolean {
    return this.#json!.push(character);
  }

  flush(pieces: CallPiece[]): void {
    const text = this.#json?.take() ?? "";
    if (text !== "") pieces.push({ type: "arguments", index: this.#index, text });
  }
}

/**
 * Calls that have a head each, and JSON behind it.
 * @param headOf the call's name at the end of a text, where its arguments begin; null where they do not yet
 */
export function headedCalls(headOf: (text: string) => { name: string; id?: string } | null): CallReader {
  const args = new Arguments();
  let head = "";
  return {
    push(text) {
      const pieces: CallPiece[] = [];
      for (const character of text) {
        if (args.isOpen && args.push(character)) continue;
        args.flush(pieces);
        head += character;
        const found = headOf(head);
        if (!found) continue;
        args.begin(pieces, found.name, found.id);
        head = "";
      }
      args.flush(pieces);
      return pieces;
    },
  };
}

/**
 * An object `{"name": …, "arguments": …}`, or a list of them. Calls whose arguments come ahead of their names are left to
 * the parser of the whole, and so are arguments that are a text, where `texts` is false.
 */
export function jsonCalls({ texts = true } = {}): CallReader {
  const args = new Arguments();
  let fields = new Map<string, unknown>();
  let key: string | null = null;
  /** A key, or a value that is no call's arguments. */
  let part: JsonPieces | null = null;
  let isFailed = false;
  let isObject = false;

  const begin = (pieces: CallPiece[], character: string): void => {
    const [name, id] = [fields.get("name"), fields.get("id")];
    const streams = key === "arguments" && typeof name === "string" && (texts || character !== '"');
    if (streams) args.begin(pieces, name, typeof id === "string" ? id : undefined);
    else part = new JsonPieces();
    if (streams) args.push(character);
    else part!.push(character);
  };

  const endPart = (): void => {
    if (!part || part.state === "open") return;
    if (part.state === "failed") isFailed = true;
    else {
      const value: unknown = key === null || ["name", "id"].includes(key) ? parsed(part.take()) : null;
      if (key === null) key = String(value);
      else {
        fields.set(key, value);
        key = null;
      }
    }
    part = null;
  };

  const structure = (pieces: CallPiece[], character: string): void => {
    if ((isObject ? " \t\n\r,:" : " \t\n\r,[]").includes(character)) return;
    if (character === "{" && !isObject) {
      isObject = true;
      fields = new Map();
    } else if (character === "}" && isObject) isObject = false;
    else if (!isObject) isFailed = true;
    else begin(pieces, character);
  };

  return {
    push(text) {
      const pieces: CallPiece[] = [];
      for (const character of text) {
        if (isFailed) break;
        if (args.isOpen) {
          if (args.push(character)) {
            if (!args.isOpen) key = null;
            isFailed = args.isFailed;
            continue;
          }
          key = null;
        } else if (part?.push(character)) {
          endPart();
          continue;
        } else endPart();
        args.flush(pieces);
        structure(pieces, character);
        endPart();
      }
      args.flush(pieces);
      return pieces;
    },
  };
}

function parsed(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return null;
  }
}
