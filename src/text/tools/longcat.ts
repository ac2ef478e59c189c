/** LongCat: `NAME<longcat_arg_key>k</longcat_arg_key><longcat_arg_value>v</longcat_arg_value>…`, or a JSON object. */
import { strip } from "../python-text";
import type { ToolFormat } from "./format";
import { parseJson } from "./json";
import { callsOf } from "./json-tools";
import { parsePairs } from "./tagged-pairs";

export const longcat: ToolFormat = {
  start: "<longcat_tool_call>",
  end: "</longcat_tool_call>",
  parse(text, tools) {
    const stripped = strip(text);
    const json = stripped.startsWith("{") ? parseJson(stripped) : undefined;
    if (json !== undefined) return callsOf(json);
    const call = parsePairs(stripped, "longcat_arg", tools);
    return call && [call];
  },
};
