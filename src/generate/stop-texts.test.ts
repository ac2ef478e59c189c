/** Stop texts in texts that arrive in pieces. */
import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { StopTexts } from "./stop-texts";

/** What passes of a text that comes in pieces. */
function passed(stops: StopTexts, pieces: readonly string[]): string {
  return pieces.map((piece) => stops.push(piece)).join("") + stops.end();
}

const word = fc.stringMatching(/^[ab]{0,14}$/);

describe("stop texts", () => {
  test("cut where they stand, however the text is parted", () => {
    const stop = fc.stringMatching(/^[ab]{1,4}$/);
    fc.assert(
      fc.property(fc.array(word), stop, (pieces, text) => {
        const whole = pieces.join("");
        const at = whole.indexOf(text);
        const stops = new StopTexts([text], null);
        expect(passed(stops, pieces)).toBe(at < 0 ? whole : whole.slice(0, at));
        expect(stops.found).toBe(at >= 0);
      }),
      { seed: 7, numRuns: 300 },
    );
  });

  test("the first of several to end counts", () => {
    const stops = new StopTexts(["END", "\n\n"], null);
    expect(passed(stops, ["one\n", "two EN", "Dthree\n\nfour"])).toBe("one\ntwo ");
    expect(stops.found).toBe(true);
  });

  test("the beginning of one is held back, and comes when it turns out to be none", () => {
    const stops = new StopTexts(["stop"], null);
    expect(stops.push("a st")).toBe("a ");
    expect(stops.push("ay st")).toBe("stay ");
    expect(stops.end()).toBe("st");
  });

  test.each([
    { open: true, text: "x y x</think>ab x c", left: "x y x</think>ab " },
    { open: false, text: "<think>x</think>ab x c", left: "<think>x</think>ab " },
    { open: false, text: "ab x c<think>x</think>", left: "ab " },
    { open: true, text: "x x x", left: "x x x" },
    { open: false, text: "<think>x</think>a<think>x</think>bx", left: "<think>x</think>a<think>x</think>b" },
  ])("do not count within thoughts where that is asked for: $text", ({ open, text, left }) => {
    for (const size of [1, 2, 3, 100]) {
      const pieces = text.match(new RegExp(`.{1,${size}}`, "g"))!;
      expect(passed(new StopTexts(["x"], { start: "<think>", end: "</think>", open }), pieces)).toBe(left);
    }
  });
});

test("the text that was found is told", () => {
  const stops = new StopTexts(["end", "stop", "top"], null);
  expect(stops.match).toBeNull();
  stops.push("don't st");
  expect(stops.match).toBeNull();
  stops.push("op here, at the end");
  expect(stops.match).toBe("stop");
});
