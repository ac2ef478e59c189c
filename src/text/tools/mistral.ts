/** `NAME[ARGS]{json}`, any number, or a JSON list of objects with name and arguments. No marker ends them. */
import { type CallReader, headedCalls, jsonCalls } from "./call-reader";
import { type ToolCall, type ToolFormat, toolCall } from "./format";
import { decodeJson, parseJson } from "./json";
import { skipSpace, spaceStart, wordStart } from "./scan";
import { isMapping, type Value } from "./value";

const ARGS = "[ARGS]";

export const mistral: ToolFormat = {
  start: "[TOOL_CALLS]",
  end: "",
  parse(text) {
    const json = parseJson(text);
    const calls = Array.isArray(json) && json.length > 0 ? listed(json) : headed(text);
    return calls && calls.length > 0 ? calls : null;
  },
  reader(): CallReader {
    let reader: CallReader | null = null;
    let ahead = "";
    return {
      push(text) {
        if (reader) return reader.push(text);
        ahead += text;
        if (skipSpace(ahead, 0) === ahead.length) return [];
        reader = ahead[skipSpace(ahead, 0)] === "[" ? jsonCalls({ texts: false }) : headedCalls(headOf);
        return reader.push(ahead);
      },
    };
  },
};

/** The name before the mark at a text's end. */
function headOf(text: string): { name: string } | null {
  if (!text.endsWith(ARGS)) return null;
  const nameEnd = spaceStart(text, text.length - ARGS.length);
  const name = text.slice(wordStart(text, 0, nameEnd, "-"), nameEnd);
  return name === "" ? null : { name };
}

function listed(list: Value[]): ToolCall[] | null {
  const calls: ToolCall[] = [];
  for (const call of list) {
    if (!isMapping(call)) return null;
    const [id, name, given = new Map()] = [call.get("id"), call.get("name"), call.get("arguments")];
    // Some templates write the arguments as a text of JSON.
    const args = typeof given === "string" ? parseJson(given) : given;
    if (typeof name !== "string" || !isMapping(args)) return null;
    calls.push(toolCall(name, args, typeof id === "string" ? id : undefined));
  }
  return calls;
}

function headed(text: string): ToolCall[] | null {
  const calls: ToolCall[] = [];
  let at = 0;
  for (let mark = text.indexOf(ARGS); mark >= 0; mark = text.indexOf(ARGS, Math.max(at, mark + 1))) {
    const nameEnd = Math.max(at, spaceStart(text, mark));
    const nameStart = wordStart(text, at, nameEnd, "-");
    if (nameStart === nameEnd) continue;
    const json = decodeJson(text, skipSpace(text, mark + ARGS.length));
    if (!json) return null;
    calls.push(toolCall(text.slice(nameStart, nameEnd), json.value));
    at = json.end;
  }
  return calls;
}
