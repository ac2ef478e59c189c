/** `[f(a=1, b="x"), g()]`: calls as Python writes them, its constants or JSON's in the arguments. */
import { strip } from "../python-text";
import { type ToolFormat, toolCall } from "./format";
import { parseCalls, parseLiteral } from "./literal";
import { WORD, wordStart } from "./scan";
import type { Mapping, Value } from "./value";

const HEAD = new RegExp(`\\[([${WORD}.]+)\\(`, "gu");
/** Behind a quoted value: the end of the arguments, or a comma. */
const VALUE_END = /,|\n?$/y;

export const pythonic: ToolFormat = {
  start: "<|tool_call_start|>",
  end: "<|tool_call_end|>",
  parse(text) {
    const calls = parseCalls(text.slice(Math.max(text.indexOf("["), 0), text.lastIndexOf("]") + 1));
    if (calls) return calls.map((call) => toolCall(call.name, call.arguments));
    // What is not quite Python may still be one call.
    HEAD.lastIndex = 0;
    const head = HEAD.exec(text);
    const end = head ? text.indexOf(")]", HEAD.lastIndex) : -1;
    return head && end >= 0 ? [toolCall(head[1]!, looseArguments(text.slice(HEAD.lastIndex, end)))] : null;
  },
};

/** `key=value` between commas, where a value is quoted or goes on to the next comma. */
function looseArguments(text: string): Mapping {
  const args: Mapping = new Map();
  let at = 0;
  while (true) {
    const equals = text.indexOf("=", at);
    if (equals < 0) return args;
    const from = wordStart(text, at, equals);
    const value = from < equals ? (quoted(text, equals + 1) ?? bare(text, equals + 1)) : null;
    at = value ? value.to : equals + 1;
    if (value) args.set(text.slice(from, equals), readValue(value.text));
  }
}

function quoted(text: string, from: number): { text: string; to: number } | null {
  const quote = text[from];
  if (quote !== '"' && quote !== "'") return null;
  const end = text.indexOf(quote, from + 1);
  VALUE_END.lastIndex = end + 1;
  return end > 0 && VALUE_END.test(text) ? { text: text.slice(from + 1, end), to: VALUE_END.lastIndex } : null;
}

function bare(text: string, from: number): { text: string; to: number } | null {
  const comma = text.indexOf(",", from);
  const end = comma < 0 ? text.length : comma;
  return end > from ? { text: strip(text.slice(from, end)), to: end } : null;
}

function readValue(text: string): Value {
  const value = parseLiteral(text);
  return value === undefined ? text : value;
}
