/** `<|tool_call_begin|>functions.NAME:INDEX<|tool_call_argument_begin|>{json}<|tool_call_end|>`, any number. */
import { headedCalls } from "./call-reader";
import { deserialize } from "./deserialize";
import { type ToolCall, type ToolFormat, toolCall } from "./format";
import { SPACE, skipSpace, spans } from "./scan";

const BEGIN = "<|tool_call_begin|>";
const ARGUMENTS = "<|tool_call_argument_begin|>";
const PREFIX = "functions.";
/** What ends a call's id. */
const INDEX = new RegExp(`(:\\p{Nd}+)${SPACE}*<\\|tool_call_argument_begin\\|>`, "gu");

export const kimiK2: ToolFormat = {
  start: "<|tool_calls_section_begin|>",
  end: "<|tool_calls_section_end|>",
  parse(text) {
    const marked = [...spans(text, BEGIN, "<|tool_call_end|>")].map(({ inner }) => inner);
    const calls = (marked.length > 0 ? marked : [text]).map(parseCall);
    return calls.every((call) => call !== null) ? calls : null;
  },
  reader: () => headedCalls((text) => (text.endsWith(ARGUMENTS) ? parseHead(text.slice(begin(text))) : null)),
};

/** Where the latest call's id begins. */
function begin(text: string): number {
  const at = text.lastIndexOf(BEGIN);
  return at < 0 ? 0 : at + BEGIN.length;
}

function parseCall(text: string): ToolCall | null {
  const head = parseHead(text);
  if (!head) return null;
  const args = text.indexOf(ARGUMENTS) + ARGUMENTS.length;
  return toolCall(head.name, deserialize(text.slice(skipSpace(text, args))), head.id);
}

/** The id and the name in it, which has one character at least: if need be the last space, or the prefix. */
function parseHead(text: string): { id: string; name: string } | null {
  const start = skipSpace(text, 0);
  const named = text.startsWith(PREFIX, start) ? [start + PREFIX.length] : [];
  for (const from of [...named, start, start - 1]) {
    INDEX.lastIndex = from + 1;
    const index = from < 0 ? null : INDEX.exec(text);
    if (!index) continue;
    const idFrom = from === start + PREFIX.length ? start : from;
    return { id: text.slice(idFrom, index.index) + index[1], name: text.slice(from, index.index) };
  }
  return null;
}
