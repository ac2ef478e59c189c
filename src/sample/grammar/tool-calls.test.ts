import { afterAll, describe, expect, test } from "bun:test";
import * as mx from "../../mlx";
import type { Tokenizer } from "../../text/tokenizer";
import { TOOL_FORMATS, type ToolFormatName } from "../../text/tools";
import { toolsGrammar } from "./tool-calls";

/** A byte is a token, and 256 ends a text. */
const stop = 256;
const bytes = Array.from({ length: stop }, (_, byte) => Uint8Array.of(byte));
const vocabulary = new mx.grammar.Vocabulary([...bytes, new Uint8Array()], [stop]);
afterAll(() => vocabulary.dispose());

const speaking = (name: ToolFormatName) =>
  ({ toolFormat: TOOL_FORMATS[name], idOf: () => null, eosTokenIds: new Set([stop]) }) as unknown as Tokenizer;

const parameters = {
  type: "object",
  properties: {
    city: { type: "string", pattern: "^[A-Z][a-z]{1,5}$" },
    days: { type: "integer", minimum: 1, maximum: 20 },
    wet: { type: "boolean" },
  },
  required: ["city", "days", "wet"],
  additionalProperties: false,
};
const tools = ["weather", "get_news"].map((name) => ({ type: "function", function: { name, parameters } }));

/** Numbers that look drawn, the same each time. */
function* drawn(seed: number): Generator<number, never> {
  for (let state = seed; ; ) {
    state = (state * 1664525 + 1013904223) >>> 0;
    yield state / 2 ** 32;
  }
}

/** A text by the grammar, each byte drawn from those that may follow. */
async function written(name: ToolFormatName, seed: number, parallel = false): Promise<string> {
  const { language, text } = toolsGrammar({ type: "tools", tools, parallel }, speaking(name));
  const grammar = await vocabulary.compile(language, text);
  const matcher = grammar.matcher();
  const random = drawn(seed);
  const said: number[] = [];
  while (said.length < 2000) {
    const allowed = mx.scope(() => {
      const { bits } = mx.grammar.maskOf([{ matcher }], stop + 1);
      const logits = mx.grammar.maskLogits(mx.zeros([1, stop + 1]), bits).toArray() as Float32Array;
      return [...logits.keys()].filter((token) => logits[token] === 0);
    });
    const token =
      allowed.includes(stop) && random.next().value < 0.7
        ? stop
        : allowed[Math.floor(random.next().value * allowed.length)]!;
    matcher.accept(token);
    if (token === stop) break;
    said.push(token);
  }
  matcher.dispose();
  grammar.dispose();
  return Buffer.from(said).toString();
}

/** What stands between a format's markers, as its own parser reads it. */
function calls(name: ToolFormatName, text: string) {
  const { start, end, parse } = TOOL_FORMATS[name];
  const inside = text
    .split(start)
    .slice(1)
    .map((part) => (end === "" ? part : part.slice(0, part.lastIndexOf(end))));
  return inside.flatMap((part) => parse(part, tools) ?? [null]);
}

const exact = ["json_tools", "longcat", "qwen3_coder", "glm47", "minimax_m2", "kimi_k2", "mistral"] as const;

describe("a call by the grammar is one that the format's own parser reads", () => {
  for (const name of exact) {
    test(name, async () => {
      for (const seed of [1, 2, 3]) {
        const text = await written(name, seed);
        const [call, ...others] = calls(name, text);
        expect([text, others]).toEqual([text, []]);
        expect(["weather", "get_news"]).toContain(call?.name ?? "");
        const { city, days, wet } = JSON.parse(call!.arguments);
        // xgrammar lets white space stand beside a text between tags.
        expect(city.trim()).toMatch(/^[A-Z][a-z]{1,5}$/);
        expect(days).toBeWithin(1, 21);
        expect(typeof wet).toBe("boolean");
      }
    });
  }
});

test("several calls, where they may be parallel", async () => {
  const counts = await Promise.all(
    Array.from({ length: 12 }, async (_, seed) => calls("json_tools", await written("json_tools", seed, true)).length),
  );
  expect(Math.max(...counts)).toBeGreaterThan(1);
});

describe("calls among text", () => {
  const [open, close] = [257, 258];
  const marker = Uint8Array.of(0xff, 0xff);
  const marked = new mx.grammar.Vocabulary([...bytes, new Uint8Array(), marker, marker], [stop]);
  afterAll(() => marked.dispose());
  const id = (token: string) => ({ "<tool_call>": open, "</tool_call>": close })[token] ?? null;
  const speakers: [string, mx.grammar.Vocabulary, Tokenizer, number[]][] = [
    ["a marker of text", vocabulary, speaking("json_tools"), [...Buffer.from("<tool_call>")]],
    ["a token", marked, { ...speaking("json_tools"), idOf: id } as Tokenizer, [open]],
  ];

  test.each(speakers)("are held to their schemas, begun by %s", async (_, own, tokenizer, opening) => {
    const { language, text } = toolsGrammar({ type: "tools", tools, optional: true, parallel: true }, tokenizer);
    const grammar = await own.compile(language, text);
    const matcher = grammar.matcher();
    const takes = (tokens: Iterable<number>) => [...tokens].every((token) => matcher.accept(token));
    const ends = (last: string) =>
      own === marked ? [...Buffer.from(last), close] : Buffer.from(`${last}</tool_call>`);
    const [before, after] = ['\n{"name": "weather", "arguments": {"city": "Bern", "days": ', ', "wet": true}}\n'];
    expect(takes(Buffer.from("Let me see <b>, {}"))).toBe(true);
    expect(matcher.state).toBe("complete");
    expect(takes(opening)).toBe(true);
    expect(matcher.state).toBe("open");
    expect(takes(Buffer.from(`${before}7`))).toBe(true);
    expect(takes(ends(after))).toBe(true);
    expect(matcher.state).toBe("complete");
    expect(takes(opening) && takes(Buffer.from(before))).toBe(true);
    // There are at most 20 days.
    expect(takes(Buffer.from("77"))).toBe(false);
    matcher.dispose();
    grammar.dispose();
  });

  test("are not where a format leaves their inside free", () => {
    const asked = { type: "tools" as const, tools, optional: true };
    expect(() => toolsGrammar(asked, speaking("pythonic"))).toThrow("cannot be held to a schema");
  });
});

test("of other formats the markers are asked for", async () => {
  const { text } = toolsGrammar({ type: "tools", tools }, speaking("pythonic"));
  expect(text).toContain("<|tool_call_start|>");
});

test("a tool without a name, and one whose schema cannot be held to", () => {
  const grammar = (tool: unknown) => () => toolsGrammar({ type: "tools", tools: [tool] }, speaking("json_tools"));
  expect(grammar({})).toThrow("tool 1 has no name");
  expect(grammar({ name: "f", parameters: { not: {} } })).toThrow(
    'the parameters of tool "f": JSON schema: "not" at #',
  );
});
