import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import fc from "fast-check";
import { UserError } from "../../errors";
import { inferToolFormat, TOOL_FORMATS, type ToolCall, type ToolFormatName, toolFormat } from ".";

interface Case {
  format: ToolFormatName;
  text: string;
  /** The tools are on offer. */
  tools: boolean;
  /** Null where mlx-lm raises ValueError. */
  calls?: ToolCall[] | null;
  /** Where mlx-lm's server loses the connection. */
  dies?: boolean;
}
const fixture = await Bun.file(join(import.meta.dir, "../../../test/fixtures/tools.json")).json();
const tools: unknown[] = fixture.tools;
const cases: Case[] = fixture.cases;
const names = Object.keys(TOOL_FORMATS) as ToolFormatName[];

describe.each(names)("%s, as mlx-lm parses it", (name) => {
  const own = cases.filter(({ format }) => format === name);

  test.each(own.map((item) => [item.text, item] as const))("%j", (_, { text, tools: given, calls, dies }) => {
    const parsed = TOOL_FORMATS[name].parse(text, given ? tools : null);
    if (!dies) expect(parsed).toEqual(calls!);
  });

  test("some of them are calls, and some are not", () => {
    expect(own.some(({ calls }) => calls && calls.length > 0)).toBe(true);
    if (name !== "glm47" && name !== "laguna") expect(own.some(({ calls }) => !calls)).toBe(true);
  });
});

test("the arguments are JSON", () => {
  const finite = cases.flatMap(({ calls }) => calls ?? []).filter((call) => !/NaN|Infinity/.test(call.arguments));
  expect(finite.length).toBeGreaterThan(200);
  for (const call of finite) JSON.parse(call.arguments);
});

test("ids and decimals keep their digits", () => {
  const [call] = TOOL_FORMATS.json_tools.parse('{"name":"f","arguments":{"id":1234567890123456789,"x":1.0,"y":1e22}}')!;
  expect(call!.arguments).toBe('{"id": 1234567890123456789, "x": 1.0, "y": 1e+22}');
});

test("what JSON can't hold stays text, where mlx-lm's server loses the connection", () => {
  const value = (text: string) => TOOL_FORMATS.glm47.parse(`f<arg_key>a</arg_key><arg_value>${text}</arg_value>`);
  for (const text of ["{1, 2}", "b'x'", "1+2j", "{(1, 2): 3}", "..."]) {
    expect(value(text)).toEqual([{ name: "f", arguments: JSON.stringify({ a: text }).replace(":", ": ") }]);
  }
});

test("tools that are no schemas do no harm", () => {
  let deep: unknown = {};
  for (let i = 0; i < 20_000; i++) deep = { anyOf: [deep] };
  const strange = [
    [null, 5, "x", [], {}, { function: null }, { function: "f" }, { function: { name: "f", parameters: 3 } }],
    [{ function: { name: "f", parameters: { properties: { a: 3, b: null, c: { type: 7, enum: 1, anyOf: {} } } } } }],
    [{ function: { name: "f", parameters: { properties: { a: deep } } } }],
    [{ function: { name: "f", parameters: { properties: { a: { type: deep } } } } }],
  ];
  for (const offered of strange) {
    for (const { format, text } of cases) TOOL_FORMATS[format].parse(text.replaceAll("get_weather", "f"), offered);
  }
});

/** The quickest of a few runs, so that a busy machine does not count. */
function quickest(run: () => void): number {
  let best = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 5 && best > 50; i++) {
    const began = performance.now();
    run();
    best = Math.min(best, performance.now() - began);
  }
  return best;
}

const PIECES = [
  ..."<>{}[]()\"':,=\\\n \t\u00a0a1_-|é😀\0",
  ...[
    '<|"|>',
    "<escape>",
    "call:f{",
    "<arg_key>",
    "</arg_key>",
    "<arg_value>",
    "</arg_value>",
    "<parameter=",
    "</parameter>",
  ],
  ...["</function>", "<invoke name=", "</invoke>", "<parameter name=", "<param name=", "</param>", "<![CDATA[", "]]>"],
  ...[
    "name=",
    "<function ",
    '<atem:invoke name="',
    "</atem:invoke>",
    "<atem:parameter ",
    'name="a">',
    "</atem:parameter>",
  ],
  ...[
    "[ARGS]",
    "f[ARGS]",
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "functions.",
    ":0",
    "<|open|>call",
    "<|sep|>",
  ],
  ...[
    '<|open|>argument key="k"',
    "<|close|>argument",
    "<|close|>call<|sep|>",
    "f(a=",
    "[f(",
    ")]",
    "'''",
    "{'a':",
    "\\u12",
    "# ",
  ],
];

/** Where to cut, as shares of the text, and what to do there. */
const edit = fc.record({
  cuts: fc.tuple(fc.double({ min: 0, max: 1, noNaN: true }), fc.double({ min: 0, max: 1, noNaN: true })),
  piece: fc.constantFrom(...PIECES),
  times: fc.nat(60),
  kind: fc.constantFrom("cut", "insert", "double", "repeat"),
});

type Edit = typeof edit extends fc.Arbitrary<infer T> ? T : never;

function apply(text: string, { cuts, piece, times, kind }: Edit): string {
  const [from = 0, to = 0] = cuts.map((share) => Math.round(share * text.length)).sort((a, b) => a - b);
  switch (kind) {
    case "cut":
      return text.slice(0, from) + text.slice(to);
    case "insert":
      return text.slice(0, from) + piece + text.slice(from);
    case "double":
      return text.slice(0, to) + text.slice(from);
    default:
      return text.slice(0, from) + piece.repeat(times) + text.slice(to);
  }
}

test("20,000 damaged texts: nothing is thrown, and nothing takes long", () => {
  const damages = fc.sample(fc.tuple(fc.constantFrom(...cases), fc.array(edit, { minLength: 1, maxLength: 4 })), {
    seed: 1,
    numRuns: 20_000,
  });
  for (const [i, [whole, edits]] of damages.entries()) {
    const text = edits.reduce(apply, whole.text);
    // Half of the texts go to their own format, which reads far into them.
    const format = TOOL_FORMATS[i % 2 === 0 ? whole.format : names[i % names.length]!];
    const began = performance.now();
    const calls = format.parse(text, tools);
    if (performance.now() - began > 50) expect(quickest(() => format.parse(text, tools))).toBeLessThan(50);
    const areCalls = calls?.every((call) => typeof call.name === "string" && typeof call.arguments === "string");
    if (areCalls === false) expect(calls).toEqual([]);
  }
});

test.each(names.filter((name) => name !== "laguna"))("%s: the time grows with the length alone", (name) => {
  const { parse } = TOOL_FORMATS[name];
  const whole = cases.find(({ format, text, calls }) => format === name && text.length > 30 && calls?.length)!.text;
  const heads = ["", whole.slice(0, whole.length / 2)];
  for (const piece of [...PIECES, whole, `${whole} `, "a ", "a=1 ", "a:b,", '"a" ', "[1,", "a.b "]) {
    for (const head of heads) {
      // Quadratic work on a text of this length takes half a second and more.
      const text = head + piece.repeat(Math.ceil(40_000 / piece.length)) + whole.slice(-12);
      expect(quickest(() => parse(text, tools))).toBeLessThan(50);
    }
  }
});

describe("which format a checkpoint has", () => {
  test("the first that the template shows counts, and the vocabulary after it", () => {
    const has =
      (...tokens: string[]) =>
      (token: string) =>
        tokens.includes(token);
    expect(inferToolFormat("<arg_key> [TOOL_CALLS]", has())).toBe("glm47");
    expect(inferToolFormat("[TOOL_CALLS]", has("<|tool_call_start|>", "<|tool_call_end|>"))).toBe("mistral");
    expect(inferToolFormat(null, has("<|tool_call_start|>", "<|tool_call_end|>"))).toBe("pythonic");
    expect(inferToolFormat("<tool_call>", has("<|tool_call_start|>"))).toBeNull();
  });

  test("a name that is not known is an error that names the nearest", () => {
    expect(() => toolFormat("glm46", "the model")).toThrow(UserError);
    expect(() => toolFormat("glm46", "the model")).toThrow('tool_parser_type is "glm46"');
    expect(() => toolFormat("constructor", "the model")).toThrow("not known");
  });
});
