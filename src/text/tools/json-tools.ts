/** One JSON object `{"name": …, "arguments": …}`, or a list of them. */
import { strip } from "../python-text";
import { jsonCalls } from "./call-reader";
import { type ToolCall, type ToolFormat, toolCall } from "./format";
import { parseJson } from "./json";
import { isMapping, type Value } from "./value";

export const jsonTools: ToolFormat = {
  start: "<tool_call>",
  end: "</tool_call>",
  parse: (text) => callsOf(parseJson(strip(text))),
  reader: jsonCalls,
};

/** The calls that a JSON value describes, or null where any of them lacks its name or arguments. */
export function callsOf(value: Value | undefined): ToolCall[] | null {
  if (value === undefined) return null;
  const calls: ToolCall[] = [];
  for (const call of Array.isArray(value) ? value : [value]) {
    if (!isMapping(call)) return null;
    const [id, name, args] = [call.get("id"), call.get("name"), call.get("arguments")];
    if (typeof name !== "string" || args === undefined) return null;
    calls.push(toolCall(name, args, typeof id === "string" ? id : undefined));
  }
  return calls;
}
