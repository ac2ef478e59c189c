/** `call:NAME{key:value,…}`, any number: JSON with bare keys, and with `<|"|>` around texts. */
import { type ToolCall, type ToolFormat, toolCall } from "./format";
import { parseJson } from "./json";
import { WORD } from "./scan";

const QUOTE = '<|"|>';
const HEAD = new RegExp(`call:([${WORD}-]+)\\{`, "gu");
const BARE_KEY = new RegExp(`(?<=[{,])([${WORD}]+):`, "gu");

export const gemma4: ToolFormat = {
  start: "<|tool_call>",
  end: "<tool_call|>",
  parse(text) {
    const closing = matchBraces(text);
    const calls: ToolCall[] = [];
    HEAD.lastIndex = 0;
    for (let head = HEAD.exec(text); head; head = HEAD.exec(text)) {
      const open = HEAD.lastIndex - 1;
      const close = closing.get(open);
      if (close === undefined) continue;
      const args = parseJson(toJson(text.slice(open, close + 1)));
      if (args === undefined) return null;
      calls.push(toolCall(head[1]!, args));
      HEAD.lastIndex = close + 1;
    }
    return calls.length > 0 ? calls : null;
  },
};

/**
 * The closing brace of each opening one. A text's braces do not count, and whether a brace stands in a text depends on
 * where the reading begins: behind an even number of quotes, or an odd one. So each half pairs up within itself.
 */
function matchBraces(text: string): Map<number, number> {
  const closing = new Map<number, number>();
  const open: [number[], number[]] = [[], []];
  let half: 0 | 1 = 0;
  for (const { 0: mark, index } of text.matchAll(/<\|"\|>|[{}]/g)) {
    if (mark === QUOTE) half = half === 0 ? 1 : 0;
    else if (mark === "{") open[half].push(index);
    else if (open[half].length > 0) closing.set(open[half].pop()!, index);
  }
  return closing;
}

function toJson(text: string): string {
  const texts: string[] = [];
  const parts = text.split(QUOTE);
  // Of an odd number of quotes the last one stays.
  const rest = parts.length % 2 === 0 ? QUOTE + parts.pop() : "";
  const held = parts.map((part, i) => (i % 2 === 0 ? part : `\0${texts.push(part) - 1}\0`)).join("") + rest;
  return held
    .replace(BARE_KEY, '"$1":')
    .replace(/\0(\d+)\0/g, (mark, index) => (texts[index] === undefined ? mark : JSON.stringify(texts[index])));
}
