/**
 * `<function name="f"><param name="k">value</param>…</function>`, with types from the schemas. The marker before the
 * calls is the first tag's start, so that may be missing; a value with brackets stands in a CDATA section.
 */
import { strip } from "../python-text";
import { convertByTypes } from "./convert";
import { type ToolFormat, toolCall } from "./format";
import { unquoted } from "./minimax-m2";
import { SPACE, skipSpace, spaceStart } from "./scan";
import { parameterSchema } from "./schema";
import type { Mapping } from "./value";

const END = "</function>";
const TAG = new RegExp(`<function${SPACE}+`, "uy");
const ATTRIBUTE = new RegExp(`name${SPACE}*=${SPACE}*`, "uy");
const BARE = /[^\p{White_Space}"'<>]*/uy;
const PARAM = new RegExp(
  `<param${SPACE}+name${SPACE}*=${SPACE}*("[^"]*"|'[^']*'|[^\\p{White_Space}"'<>]+)${SPACE}*>`,
  "uy",
);
const PARAM_END = "</param>";
const [CDATA, CDATA_END] = ["<![CDATA[", "]]>"];

export const minicpm5: ToolFormat = {
  start: "<function name=",
  end: END,
  parse(text, tools) {
    const calls = [...functions(text)].map(({ name, body }) => {
      const args: Mapping = new Map();
      for (const [key, value] of params(body)) {
        args.set(key, convertByTypes(plain(value), parameterSchema(tools, name, key)));
      }
      return toolCall(name, args);
    });
    return calls.length > 0 ? calls : null;
  },
};

/** The functions one behind another; the last may lack its end. */
function* functions(text: string): Generator<{ name: string; body: string }, void> {
  const heads = new Heads(text);
  let at = 0;
  for (let head = heads.next(at); head; head = heads.next(at)) {
    const end = text.indexOf(END, head.to);
    const isLast = end < 0;
    const bodyEnd = isLast ? Math.max(head.to, text.length - (text.endsWith("\n") ? 1 : 0)) : end;
    yield { name: unquoted(head.name), body: text.slice(head.to, bodyEnd) };
    if (isLast) return;
    at = end + END.length;
  }
}

/** The first tags of functions: a name and ">", with `<function` and `name=` before it or without. */
class Heads {
  /** The last run of a bare name's characters that was looked at, and the index behind its ">" if one follows. */
  #run = { from: 0, to: 0, end: -1 };

  constructor(private readonly text: string) {}

  next(from: number): { name: string; to: number } | null {
    for (let at = from; at < this.text.length; at++) {
      const tagged = this.#match(TAG, at);
      // With each of the optional starts, and then without it.
      for (const start of new Set([this.#match(ATTRIBUTE, tagged), tagged, this.#match(ATTRIBUTE, at), at])) {
        const name = this.#name(start);
        if (name) return name;
      }
    }
    return null;
  }

  #match(pattern: RegExp, at: number): number {
    pattern.lastIndex = at;
    return at + (pattern.exec(this.text)?.[0].length ?? 0);
  }

  #name(from: number): { name: string; to: number } | null {
    const quote = this.text[from];
    if (quote === '"' || quote === "'") {
      const end = this.text.indexOf(quote, from + 1) + 1;
      const to = end > 0 ? this.#tagEnd(end) : -1;
      return to < 0 ? null : { name: this.text.slice(from, end), to };
    }
    if (from < this.#run.from || from >= this.#run.to) {
      const to = this.#match(BARE, from);
      this.#run = { from, to, end: to > from ? this.#tagEnd(to) : -1 };
    }
    const { to, end } = this.#run;
    return end < 0 ? null : { name: this.text.slice(from, to), to: end };
  }

  /** The index behind a ">" that follows here, or -1. */
  #tagEnd(at: number): number {
    const bracket = skipSpace(this.text, at);
    return this.text[bracket] === ">" ? bracket + 1 : -1;
  }
}

function* params(body: string): Generator<[key: string, value: string], void> {
  let at = 0;
  while (true) {
    const from = body.indexOf("<param", at);
    if (from < 0) return;
    PARAM.lastIndex = from;
    const tag = PARAM.exec(body);
    at = from + 1;
    if (!tag) continue;
    const start = from + tag[0].length;
    const end = body.indexOf(PARAM_END, start);
    if (end < 0) return;
    yield [unquoted(tag[1]!), body.slice(start, end)];
    at = end + PARAM_END.length;
  }
}

function plain(value: string): string {
  const body = value.slice(skipSpace(value, 0), spaceStart(value));
  const isSection =
    body.startsWith(CDATA) && body.endsWith(CDATA_END) && body.length >= CDATA.length + CDATA_END.length;
  return isSection ? body.slice(CDATA.length, -CDATA_END.length) : strip(value);
}
