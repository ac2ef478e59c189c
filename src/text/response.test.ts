import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { codedChat } from "./coded-chats";
import { type ResponseMarkers, type ResponsePart, ResponseReader, transitionsOf } from "./response";
import { TextStates } from "./text-states";
import { TOOL_FORMATS, type ToolCall, type ToolFormatName } from "./tools";

interface Answer {
  thinking: [start: string, end: string] | null;
  format: ToolFormatName | null;
  /** Laid out as Muse Spark's answers are. */
  layout: boolean;
  structural: string[];
  stop_words: string[];
  initial: string;
  text: string;
  /** mlx-lm's parts, those of one state that touch joined. */
  runs: [state: string, text: string][];
  content: string;
  reasoning: string;
  calls: (ToolCall[] | null)[];
  dies: boolean;
}
const fixture = await Bun.file(join(import.meta.dir, "../../test/fixtures/tools.json")).json();
const answers: Answer[] = fixture.answers;

const markersOf = (answer: Answer): ResponseMarkers => ({
  thinking: answer.thinking && { start: answer.thinking[0], end: answer.thinking[1] },
  tools: answer.format && TOOL_FORMATS[answer.format],
  structural: answer.structural,
  layout: answer.layout ? codedChat("muse_spark", "the model").layout : null,
});

/** Every cut in two, one piece a character, and a few of other lengths. */
function* splits(text: string): Generator<string[]> {
  for (let at = 0; at <= text.length; at++) yield [text.slice(0, at), text.slice(at)];
  for (const length of [1, 2, 3, 7]) yield text.match(new RegExp(`[^]{1,${length}}`, "g")) ?? [];
}

function runsOf(answer: Answer, pieces: string[]): [string, string][] {
  const states = new TextStates(transitionsOf(markersOf(answer), answer.stop_words), answer.initial);
  const runs: [string, string][] = [];
  for (const { state, text } of [...pieces.flatMap((piece) => states.push(piece)), states.flush()]) {
    if (runs.at(-1)?.[0] === state) runs.at(-1)![1] += text;
    else runs.push([state, text]);
  }
  return runs;
}

function read(answer: Answer, pieces: string[]) {
  const reader = new ResponseReader(markersOf(answer), {
    inThought: answer.initial === "reasoning",
    tools: fixture.tools,
    stopWords: answer.stop_words,
  });
  const parts = [...pieces.flatMap((piece) => reader.push(piece)), ...reader.end()];
  const join = (type: string) => parts.map((part) => (part.type === type && "text" in part ? part.text : "")).join("");
  const calls = parts.filter(({ type }) => type === "calls" || type === "malformed");
  expect(reader.hasCalled).toBe(calls.length > 0);
  return {
    content: join("text"),
    reasoning: join("reasoning"),
    calls: calls.map((part) => ("calls" in part ? part.calls : null)),
  };
}

describe("as mlx-lm's server cuts it, however it is split", () => {
  test.each(answers.map((answer) => [answer.text, answer] as const))("%j", (text, answer) => {
    for (const pieces of splits(text)) {
      expect(runsOf(answer, pieces)).toEqual(answer.runs);
      const { content, reasoning, calls } = read(answer, pieces);
      expect(content).toBe(answer.content);
      expect(reasoning).toBe(answer.reasoning);
      if (!answer.dies) expect(calls).toEqual(answer.calls);
    }
  });

  test("all five kinds of thoughts are among them", () => {
    const kinds = new Set(answers.filter(({ reasoning }) => reasoning !== "").map(({ thinking }) => thinking?.[0]));
    kinds.delete(undefined);
    expect(kinds.size).toBe(5);
  });
});

const json: ResponseMarkers = {
  thinking: { start: "<think>", end: "</think>" },
  tools: TOOL_FORMATS.json_tools,
};
const call = '{"name": "f", "arguments": {}}';

describe("what comes out when", () => {
  test("text passes through at once, but for what may begin a marker", () => {
    const reader = new ResponseReader(json);
    expect(reader.push("a < b <")).toEqual([{ type: "text", text: "a < b " }]);
    expect(reader.push("too")).toEqual([]);
    expect(reader.push("k")).toEqual([{ type: "text", text: "<took" }]);
    expect(reader.push("<<thi")).toEqual([{ type: "text", text: "<" }]);
    expect(reader.push("nk>so")).toEqual([{ type: "reasoning", text: "so" }]);
    expect(reader.push("</think")).toEqual([]);
    expect(reader.push(">")).toEqual([]);
    expect(reader.push("b")).toEqual([{ type: "text", text: "b" }]);
    expect(reader.end()).toEqual([]);
  });

  test("a call comes out when it is whole, also from a thought", () => {
    const reader = new ResponseReader(json, { inThought: true });
    expect(reader.push(`hm<tool_call>${call}`)).toEqual([{ type: "reasoning", text: "hm" }]);
    const calls: ResponsePart = { type: "calls", calls: [{ name: "f", arguments: "{}" }] };
    expect(reader.push("</tool_call><tool_call>")).toEqual([calls]);
    expect(reader.push(`${call}</tool_call>.`)).toEqual([calls, { type: "text", text: "." }]);
  });

  test("an unfinished call is read at the end, and told apart where it is none", () => {
    const [finished, cut, empty] = [call, '{"name":', ""].map((text) => {
      const reader = new ResponseReader(json);
      reader.push(`<tool_call>${text}`);
      return reader.end();
    });
    expect(finished).toEqual([{ type: "calls", calls: [{ name: "f", arguments: "{}" }] }]);
    expect(cut).toEqual([{ type: "malformed", text: '{"name":' }]);
    expect(empty).toEqual([]);
  });

  test("what was held back at the end can be kept or dropped", () => {
    const [kept, dropped] = [true, false].map((keepsHeld) => {
      const reader = new ResponseReader(json, { stopWords: ["\n\n"] });
      reader.push("one\n");
      return reader.end({ keepsHeld });
    });
    expect(kept).toEqual([{ type: "text", text: "\n" }]);
    expect(dropped).toEqual([]);
  });

  test("of markers that end together the longer counts, and of equal ones the last", () => {
    const cut = (markers: [string, string][]) => new TextStates({ normal: markers }, "normal").push("a<<b")[0]!.text;
    expect(
      cut([
        ["<", "x"],
        ["<<", "y"],
      ]),
    ).toBe("a");
    expect(
      cut([
        ["<<", "y"],
        ["b", "x"],
        ["<<b", "z"],
      ]),
    ).toBe("a");
    const states = new TextStates(
      {
        normal: [
          ["<", "x"],
          ["<", "y"],
        ],
      },
      "normal",
    );
    states.push("<");
    expect(states.state).toBe("y");
  });
});
