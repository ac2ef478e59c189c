/** GLM 4.7 and Laguna: `NAME<arg_key>k</arg_key><arg_value>v</arg_value>…`, and what GLM writes instead at times. */
import { strip } from "../python-text";
import { deserialize } from "./deserialize";
import { type ToolCall, type ToolFormat, toolCall } from "./format";
import { parseJson } from "./json";
import { isText, type Tools } from "./schema";
import { splitWords } from "./shell";
import { parsePairs } from "./tagged-pairs";
import { isMapping, isTruthy, type Mapping, str, type Value } from "./value";

export const glm47: ToolFormat = {
  start: "<tool_call>",
  end: "</tool_call>",
  parse(text, tools) {
    const call = parsePairs(text, "arg", tools) ?? parseObject(text, tools) ?? parsePlain(text, tools);
    return [call ?? toolCall("unknown", new Map([["raw", strip(text)]]))];
  },
};

/** A JSON object, or the first of a list, in one of three shapes. */
function parseObject(text: string, tools: Tools): ToolCall | null {
  const json = parseJson(strip(text));
  const parsed = Array.isArray(json) && isMapping(json[0]) ? json[0] : json;
  if (!isMapping(parsed)) return null;

  let [name, args]: [Value | undefined, Value | undefined] = [undefined, undefined];
  const tool = parsed.get("tool");
  if (parsed.has("arguments") && parsed.has("name")) [name, args] = [parsed.get("name"), parsed.get("arguments")];
  else if (parsed.has("arguments") && parsed.has("function")) {
    [name, args] = [parsed.get("function"), parsed.get("arguments")];
  } else if (isMapping(tool)) [name, args] = [tool.get("name"), tool.get("arguments")];

  if (isMapping(name)) {
    args = args !== undefined && isTruthy(args) ? args : name.get("arguments");
    name = name.get("name");
  }
  if (typeof args === "string") args = deserialize(args);
  if (typeof name !== "string") return null;
  if (args === undefined || args === null) return toolCall(name, new Map());
  return isMapping(args) ? toolCall(name, converted(name, args, tools)) : null;
}

/** `NAME {…}`, on one line or two, or `NAME key=value …`; anything else behind the name is left as it is. */
function parsePlain(text: string, tools: Tools): ToolCall | null {
  const stripped = strip(text);
  const lineEnd = stripped.indexOf("\n");
  if (lineEnd >= 0) {
    const [name, rest] = [strip(stripped.slice(0, lineEnd)), strip(stripped.slice(lineEnd))];
    const args = deserialize(rest);
    if (name && isMapping(args)) return toolCall(name, converted(name, args, tools));
  }

  if (!stripped) return null;
  const nameEnd = stripped.indexOf(" ");
  if (nameEnd < 0) return toolCall(stripped, new Map());
  const [name, rest] = [stripped.slice(0, nameEnd), strip(stripped.slice(nameEnd))];
  const args = deserialize(rest);
  if (isMapping(args)) return toolCall(name, converted(name, args, tools));
  return toolCall(name, keyValues(rest, name, tools) ?? new Map([["raw", rest]]));
}

/** Texts by the schema: as they are where it says text, else for what they stand for. */
function converted(name: string, args: Mapping, tools: Tools): Mapping {
  const result: Mapping = new Map();
  for (const [key, value] of args) {
    if (typeof key === "string" && isText(tools, name, key)) result.set(key, str(value));
    else result.set(key, typeof value === "string" ? deserialize(value) : value);
  }
  return result;
}

/** `key=value` words as a shell cuts them, or null where any word is not one. */
function keyValues(text: string, name: string, tools: Tools): Mapping | null {
  const words = text.includes("=") ? splitWords(text) : undefined;
  if (!words || words.length === 0) return null;
  const args: Mapping = new Map();
  for (const word of words) {
    const split = word.indexOf("=");
    const key = strip(word.slice(0, Math.max(split, 0)));
    if (!key) return null;
    const value = word.slice(split + 1);
    args.set(key, isText(tools, name, key) ? value : deserialize(value));
  }
  return args;
}
