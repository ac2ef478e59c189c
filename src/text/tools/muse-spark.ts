/** `<atem:invoke name="f"><atem:parameter name="k">json or text</atem:parameter>…</atem:invoke>`, any number. */
import { strip } from "../python-text";
import { type ToolFormat, toolCall } from "./format";
import { parseJson } from "./json";
import { WORD } from "./scan";
import type { Value } from "./value";

const INVOKE_END = "</atem:invoke>";
const PARAMETER_END = "</atem:parameter>";
const INVOKE = new RegExp(`<atem:invoke(?![${WORD}])`, "gu");
const PARAMETER = new RegExp(`<atem:parameter(?![${WORD}])`, "gu");
const NAME = new RegExp(`(?<![${WORD}])name="`, "gu");

export const museSpark: ToolFormat = {
  start: "<atem:function_calls>",
  end: "</atem:function_calls>",
  parse(text) {
    const calls = [...invokes(text)].map(({ name, body }) => toolCall(name, new Map(parameters(body))));
    return calls.length > 0 ? calls : null;
  },
};

/** The invocations one behind another; the last may lack its end. */
function* invokes(text: string): Generator<{ name: string; body: string }, void> {
  for (let head = nextHead(text, 0, INVOKE, /">/y); head; ) {
    const end = bodyEnd(text, head.to);
    yield { name: head.name, body: text.slice(head.to, end) };
    head = nextHead(text, end, INVOKE, /">/y);
  }
}

function* parameters(body: string): Generator<[name: string, value: Value], void> {
  for (let head = nextHead(body, 0, PARAMETER, /"[^>]*>/y); head; ) {
    const end = body.indexOf(PARAMETER_END, head.to);
    if (end < 0) return;
    const text = body.slice(head.to, end);
    const value = parseJson(text);
    yield [head.name, value === undefined ? strip(text) : value];
    head = nextHead(body, end, PARAMETER, /"[^>]*>/y);
  }
}

/** The next tag with a name: the first attribute `name="…"` that what must follow follows. */
function nextHead(text: string, from: number, tag: RegExp, rest: RegExp): { name: string; to: number } | null {
  let at = from;
  while (true) {
    const open = search(tag, text, at);
    const bracket = open < 0 ? -1 : text.indexOf(">", open);
    if (bracket < 0) return null;
    for (let name = search(NAME, text, open); name >= 0 && name < bracket; name = search(NAME, text, name + 1)) {
      const start = name + 'name="'.length;
      const end = text.indexOf('"', start);
      rest.lastIndex = end;
      if (end > start && rest.test(text)) return { name: text.slice(start, end), to: rest.lastIndex };
    }
    // No tag that begins before this bracket can have another name.
    at = bracket;
  }
}

/** Where an invocation's body ends: an end tag inside a parameter is the parameter's. */
function bodyEnd(text: string, from: number): number {
  let end = text.indexOf(INVOKE_END, from);
  let parameter = search(PARAMETER, text, from);
  while (parameter >= 0 && parameter < end) {
    const close = text.indexOf(PARAMETER_END, parameter);
    if (close < 0) break;
    if (end < close) end = text.indexOf(INVOKE_END, close);
    parameter = search(PARAMETER, text, close);
  }
  return end < 0 ? text.length : end;
}

function search(pattern: RegExp, text: string, from: number): number {
  pattern.lastIndex = from;
  return pattern.exec(text)?.index ?? -1;
}
