/**
 * Kimi K3's markup: `<|open|>call tool="f"<|sep|>…<|close|>call<|sep|>`, and in each call typed `argument` elements, or
 * one `json` element. A call that is malformed is passed over.
 */
import { type ToolCall, type ToolFormat, toolCall } from "./format";
import { parseJson } from "./json";
import { wordStart } from "./scan";
import { isMapping, type Mapping, type Value } from "./value";

const SEP = "<|sep|>";

export const kimiK3: ToolFormat = {
  start: `<|open|>tools${SEP}`,
  end: `<|close|>tools${SEP}`,
  parse(text) {
    const calls = [...elements(text, "call")].map(parseCall).filter((call) => call !== null);
    return calls.length > 0 ? calls : null;
  },
};

interface Element {
  attributes: Map<string, string>;
  body: string;
}

function* elements(text: string, name: string): Generator<Element, void> {
  const [open, close] = [`<|open|>${name}`, `<|close|>${name}${SEP}`];
  let at = 0;
  while (true) {
    const from = text.indexOf(open, at);
    const head = from < 0 ? -1 : text.indexOf(SEP, from + open.length);
    const end = head < 0 ? -1 : text.indexOf(close, head + SEP.length);
    if (end < 0) return;
    yield {
      attributes: parseAttributes(text.slice(from + open.length, head)),
      body: text.slice(head + SEP.length, end),
    };
    at = end + close.length;
  }
}

/** `key="value"` wherever it stands. */
function parseAttributes(text: string): Map<string, string> {
  const attributes = new Map<string, string>();
  let at = 0;
  while (true) {
    const equals = text.indexOf('="', at);
    const end = equals < 0 ? -1 : text.indexOf('"', equals + 2);
    if (end < 0) return attributes;
    const from = wordStart(text, at, equals);
    if (from < equals) {
      const value = text
        .slice(equals + 2, end)
        .replaceAll("&quot;", '"')
        .replaceAll("&amp;", "&");
      attributes.set(text.slice(from, equals), value);
    }
    at = from < equals ? end + 1 : equals + 1;
  }
}

function parseCall({ attributes, body }: Element): ToolCall | null {
  const name = attributes.get("tool");
  if (!name) return null;
  const [json] = elements(body, "json");
  if (json) {
    const args = parseJson(json.body);
    return isMapping(args) ? toolCall(name, args) : null;
  }
  const args: Mapping = new Map();
  for (const argument of elements(body, "argument")) {
    const key = argument.attributes.get("key");
    if (key === undefined) return null;
    args.set(key, readValue(argument.body, argument.attributes.get("type")));
  }
  return toolCall(name, args);
}

function readValue(text: string, type = "string"): Value {
  const value = type === "string" ? undefined : parseJson(text);
  return value === undefined ? text : value;
}
