/** Calls while they are written: joined, the pieces are what the parser of the whole gives. */
import { expect, test } from "bun:test";
import fc from "fast-check";
import type { CallPiece } from "./call-reader";
import type { ToolFormat } from "./format";
import { TOOL_FORMATS } from "./index";

/** The calls that pieces tell of, however the text is cut. */
function told(format: ToolFormat, text: string, cuts: readonly number[]): { name: string; arguments: string }[] {
  const reader = format.reader!();
  const calls: { name: string; arguments: string; id?: string }[] = [];
  const add = (piece: CallPiece) => {
    if (piece.type === "start") calls[piece.index] = { name: piece.name, arguments: "" };
    else calls[piece.index]!.arguments += piece.text;
  };
  const places = [...new Set(cuts.map((cut) => cut % (text.length + 1)))].sort((a, b) => a - b);
  for (const [i, from] of [0, ...places].entries()) reader.push(text.slice(from, places[i])).forEach(add);
  return calls;
}

const whole = (format: ToolFormat, text: string) =>
  format.parse(text)!.map(({ name, arguments: given }) => ({ name, arguments: given }));

const text = fc.oneof(fc.string(), fc.string({ unit: "binary" }), fc.constantFrom('"', "\\", "é\u{1f600}", "</x>\n"));
const value = fc.letrec((tie) => ({
  value: fc.oneof(
    { depthSize: "small" },
    text,
    fc.integer(),
    fc.double({ noNaN: true, noDefaultInfinity: true }),
    fc.constantFrom(null, true, false),
    fc.array(tie("value"), { maxLength: 3 }),
    fc.dictionary(text, tie("value"), { maxKeys: 3 }),
  ),
})).value;
const args = fc.dictionary(text, value, { maxKeys: 4 });
const name = fc.stringMatching(/^[a-z_]{1,9}$/);
const cuts = fc.array(fc.nat(400), { maxLength: 9 });
/** As models write JSON: on one line, on several, in ASCII. */
const written = fc.tuple(fc.constantFrom(undefined, 2), fc.boolean()).map(([indent, ascii]) => (of: unknown) => {
  const json = JSON.stringify(of, null, indent);
  return ascii
    ? json.replace(/[\u007f-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`)
    : json;
});

const layouts: Record<string, [ToolFormat, (calls: [string, object][], json: (of: unknown) => string) => string]> = {
  "json_tools, one": [
    TOOL_FORMATS.json_tools,
    ([call], json) => `\n${json({ name: call![0], id: "x", arguments: call![1], more: [{}] })}\n`,
  ],
  "json_tools, a list": [
    TOOL_FORMATS.json_tools,
    (calls, json) => json(calls.map(([name, given]) => ({ name, arguments: given }))),
  ],
  "mistral, a list": [
    TOOL_FORMATS.mistral,
    (calls, json) => ` ${json(calls.map(([name, given]) => ({ name, arguments: given })))}`,
  ],
  "mistral, heads": [
    TOOL_FORMATS.mistral,
    (calls, json) => calls.map(([name, given]) => `${name}[ARGS]${json(given)}`).join(""),
  ],
  kimi_k2: [
    TOOL_FORMATS.kimi_k2,
    (calls, json) =>
      calls
        .map(
          ([name, given], i) =>
            `<|tool_call_begin|>functions.${name}:${i}<|tool_call_argument_begin|>${json(given)}<|tool_call_end|>`,
        )
        .join("\n"),
  ],
};

for (const [name_, [format, write]] of Object.entries(layouts)) {
  test(name_, () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(name, args), { minLength: 1, maxLength: 3 }), written, cuts, (calls, json, at) => {
        const text = write(calls, json);
        expect(told(format, text, at)).toEqual(whole(format, text));
      }),
      { numRuns: 150 },
    );
  });
}

test("arguments come while they are written", () => {
  const reader = TOOL_FORMATS.json_tools.reader!();
  const push = (text: string) => reader.push(text);
  expect(push('{"na')).toEqual([]);
  expect(push('me": "find", "argu')).toEqual([]);
  expect(push('ments": {"text":"a')).toEqual([
    { type: "start", index: 0, name: "find" },
    { type: "arguments", index: 0, text: '{"text": "a' },
  ]);
  expect(push("b\\u00e")).toEqual([{ type: "arguments", index: 0, text: "b" }]);
  expect(push('9", "n": 1')).toEqual([{ type: "arguments", index: 0, text: 'é", "n": ' }]);
  expect(push("2}}")).toEqual([{ type: "arguments", index: 0, text: "12}" }]);
});

test.each([
  ["arguments ahead of the name", '{"arguments": {"a": 1}, "name": "f"}', []],
  ["no JSON", "{name: f}", []],
  ["no name", '{"name": 5, "arguments": {}}', []],
  ["cut in the middle", '{"name": "f", "arguments": {"a": "b', [{ name: "f", arguments: '{"a": "b' }]],
  ["broken in the middle", '{"name": "f", "arguments": {"a" 1}}', [{ name: "f", arguments: '{"a"' }]],
])("%s", (_, text, expected) => {
  expect(told(TOOL_FORMATS.json_tools, text, [])).toEqual(expected);
});

test("no text makes a reader throw", () => {
  for (const format of [TOOL_FORMATS.json_tools, TOOL_FORMATS.mistral, TOOL_FORMATS.kimi_k2]) {
    const likely = fc.array(
      fc.constantFrom(
        ...'{}[]:,"\\u0 aef1-.',
        "name",
        '"arguments"',
        "[ARGS]",
        "<|tool_call_argument_begin|>",
        "functions.a:0",
      ),
    );
    fc.assert(
      fc.property(likely, cuts, (parts, at) => void told(format, parts.join(""), at)),
      { numRuns: 300 },
    );
  }
});
