/** `<function=NAME><parameter=KEY>value</parameter>…</function>`, with types from the tool's schema. */

import { float } from "../python-numbers";
import { structure } from "./deserialize";
import { type ToolFormat, toolCall } from "./format";
import { parseJson } from "./json";
import { parseLiteral } from "./literal";
import { SPACE, spans } from "./scan";
import { parameterSchema, typeWord } from "./schema";
import { isMapping, type Mapping, type Value } from "./value";

const END = "</function>";
const OPEN = "<function=";
/** A name, closed or not: models forget the bracket. */
const NAME = new RegExp(`^${SPACE}*([^\\p{White_Space}<>]+)>?`, "u");

const TEXTS = new Set(["string", "str", "text", "varchar", "char", "enum"]);
const INTEGERS = /^(?:int|uint|long|short|unsigned)/;
const NUMBERS = /^(?:num|float)/;
const BOOLEANS = new Set(["boolean", "bool", "binary"]);
const STRUCTURES = /^(?:(?:object|array|arr)$|dict|list)/;

export const qwen3Coder: ToolFormat = {
  start: "<tool_call>",
  end: "</tool_call>",
  parse(text, tools) {
    const from = text.indexOf(OPEN);
    const end = text.replace(/\n$/, "").length - END.length;
    if (from < 0 || end < from + OPEN.length || !text.startsWith(END, end)) return null;
    const body = text.slice(from + OPEN.length, end);
    const name = NAME.exec(body);
    if (!name) return null;

    const args: Mapping = new Map();
    for (const { inner } of spans(body.slice(name[0].length), "<parameter=", "</parameter>")) {
      const key = NAME.exec(inner);
      if (!key) continue;
      const value = convert(withoutNewlines(inner.slice(key[0].length)), parameterSchema(tools, name[1]!, key[1]!));
      if (value === undefined) return null;
      args.set(key[1]!, value);
    }
    return [toolCall(name[1]!, args)];
  },
};

/** A newline between a tag and the value belongs to the tag. */
function withoutNewlines(text: string): string {
  const body = text.startsWith("\n") ? text.slice(1) : text;
  return body.endsWith("\n") ? body.slice(0, -1) : body;
}

/** The value of a parameter by its schema, or undefined for a text that is no such number. */
function convert(text: string, schema: unknown): Value | undefined {
  if (text.toLowerCase() === "null") return null;
  if (!schema || (typeof schema === "object" && Object.keys(schema).length === 0)) return text;

  const type = typeWord(schema);
  if (type === undefined) {
    const value = parseJson(text);
    return isMapping(value) || Array.isArray(value) ? value : text;
  }
  if (TEXTS.has(type)) return text;
  if (INTEGERS.test(type) || NUMBERS.test(type)) {
    const value = float(text);
    if (value === undefined || !Number.isFinite(value)) return undefined;
    if (Number.isInteger(value)) return BigInt(value);
    return INTEGERS.test(type) ? undefined : value;
  }
  if (BOOLEANS.has(type)) return text.toLowerCase() === "true";
  const value = STRUCTURES.test(type) ? structure(text, { strict: false }) : parseLiteral(text);
  return value === undefined ? text : value;
}
