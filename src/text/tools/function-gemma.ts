/** `call:NAME{key:value,key:<escape>text<escape>}`. */
import { type ToolFormat, toolCall } from "./format";
import { parseJson } from "./json";
import { WORD } from "./scan";
import type { Mapping } from "./value";

const HEAD = new RegExp(`call:([${WORD}]+)\\{`, "gu");
const ESCAPE = "<escape>";

export const functionGemma: ToolFormat = {
  start: "<start_function_call>",
  end: "<end_function_call>",
  parse(text) {
    HEAD.lastIndex = 0;
    const head = HEAD.exec(text);
    const end = head ? text.indexOf("}", HEAD.lastIndex) : -1;
    if (!head || end < 0) return null;
    const args = parseArguments(text.slice(HEAD.lastIndex, end));
    return args && [toolCall(head[1]!, args)];
  },
};

/** Null where a key or a text has no end. */
function parseArguments(text: string): Mapping | null {
  const args: Mapping = new Map();
  let at = 0;
  while (at < text.length) {
    const colon = text.indexOf(":", at);
    if (colon < 0) return null;
    const key = text.slice(at, colon);
    if (text.startsWith(ESCAPE, colon + 1)) {
      const from = colon + 1 + ESCAPE.length;
      const to = text.indexOf(ESCAPE, from);
      if (to < 0) return null;
      args.set(key, text.slice(from, to));
      at = to + ESCAPE.length + 1;
    } else {
      const comma = text.indexOf(",", colon + 1);
      const raw = text.slice(colon + 1, comma < 0 ? text.length : comma);
      const value = parseJson(raw);
      args.set(key, value === undefined ? raw : value);
      at = comma < 0 ? text.length : comma + 1;
    }
  }
  return args;
}
