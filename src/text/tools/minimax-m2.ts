/** `<invoke name="f"><parameter name="k">value</parameter>…</invoke>`, any number, with types from the schemas. */
import { strip } from "../python-text";
import { convertByTypes } from "./convert";
import { type ToolCall, type ToolFormat, toolCall } from "./format";
import { spans } from "./scan";
import { parameterSchema } from "./schema";
import type { Mapping } from "./value";

export const minimaxM2: ToolFormat = {
  start: "<minimax:tool_call>",
  end: "</minimax:tool_call>",
  parse(text, tools) {
    const calls: ToolCall[] = [];
    let found = false;
    for (const { inner: invoke } of spans(text, "<invoke name=", "</invoke>")) {
      found = true;
      const head = /^[^>]+/.exec(invoke);
      if (!head) continue;
      const name = unquoted(head[0]);
      const args: Mapping = new Map();
      for (const { inner } of spans(invoke, "<parameter name=", "</parameter>")) {
        const split = inner.indexOf(">");
        if (split <= 0) continue;
        const key = unquoted(inner.slice(0, split));
        const value = strip(inner.slice(split + 1));
        args.set(key, convertByTypes(value, parameterSchema(tools, name, key)));
      }
      calls.push(toolCall(name, args));
    }
    return found ? calls : null;
  },
};

/** A name with or without quotes of either kind. */
export function unquoted(text: string): string {
  const name = strip(text);
  const isQuoted = [`"`, "'"].some((quote) => name.startsWith(quote) && name.endsWith(quote));
  return isQuoted ? name.slice(1, -1) : name;
}
