/** `NAME<arg_key>k</arg_key><arg_value>v</arg_value>…`, as GLM and LongCat write their calls. */
import { strip } from "../python-text";
import { deserialize } from "./deserialize";
import { type ToolCall, toolCall } from "./format";
import { isText, type Tools } from "./schema";
import type { Mapping } from "./value";

/** White space between a key and its value, which may be a newline's escape. */
const GAP = /(?:\\n|\p{White_Space})*/uy;

/** Reads a call with tags `<{tag}_key>` and `<{tag}_value>`; null where there is no key. */
export function parsePairs(text: string, tag: string, tools: Tools): ToolCall | null {
  const nameEnd = text.indexOf(`<${tag}_key>`);
  if (nameEnd < 0) return null;
  const name = strip(text.slice(0, nameEnd));
  const args: Mapping = new Map();
  for (const [rawKey, rawValue] of pairs(text, tag)) {
    const [key, value] = [strip(rawKey), strip(rawValue)];
    args.set(key, isText(tools, name, key) ? value : deserialize(value));
  }
  return toolCall(name, args);
}

/** Keys and values as they stand. A key goes on until an end tag that a value follows. */
function* pairs(text: string, tag: string): Generator<[string, string], void> {
  const [keyOpen, keyClose] = [`<${tag}_key>`, `</${tag}_key>`];
  const [valueOpen, valueClose] = [`<${tag}_value>`, `</${tag}_value>`];
  let at = 0;
  while (true) {
    const key = text.indexOf(keyOpen, at);
    if (key < 0) return;
    let keyEnd = text.indexOf(keyClose, key + keyOpen.length);
    let value = -1;
    while (keyEnd >= 0) {
      GAP.lastIndex = keyEnd + keyClose.length;
      value = GAP.lastIndex + GAP.exec(text)![0].length;
      if (text.startsWith(valueOpen, value)) break;
      keyEnd = text.indexOf(keyClose, keyEnd + 1);
    }
    const valueEnd = keyEnd < 0 ? -1 : text.indexOf(valueClose, value + valueOpen.length);
    if (valueEnd < 0) return;
    yield [text.slice(key + keyOpen.length, keyEnd), text.slice(value + valueOpen.length, valueEnd)];
    at = valueEnd + valueClose.length;
  }
}
