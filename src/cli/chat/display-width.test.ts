import { describe, expect, test } from "bun:test";
import { EventEmitter } from "node:events";
import { createInterface } from "node:readline";
import { Writable } from "node:stream";
import { countGraphemes, positionBehind } from "./display-width";

describe("the cursor's place", () => {
  test.each([
    ["abc", 10, { rows: 0, cols: 3 }],
    ["0123456789", 10, { rows: 1, cols: 0 }],
    ["0123456789a", 10, { rows: 1, cols: 1 }],
    ["日本語", 10, { rows: 0, cols: 6 }],
    ["012345678日", 10, { rows: 1, cols: 2 }],
    ["👨‍👩‍👧", 10, { rows: 0, cols: 2 }],
    ["01234567👨‍👩‍👧", 10, { rows: 1, cols: 0 }],
    ["🇩🇪🇫🇷", 10, { rows: 0, cols: 4 }],
    ["e\u0301", 10, { rows: 0, cols: 1 }],
    ["a\tb", 20, { rows: 0, cols: 9 }],
    ["\x1b[1m› \x1b[22mhi", 10, { rows: 0, cols: 4 }],
    ["one\ntwo", 10, { rows: 1, cols: 5 }],
  ])("behind %j in %i columns", (text, columns, position) => {
    expect(positionBehind(text, columns)).toEqual(position);
  });
});

/** A terminal that is written to. */
class Screen extends Writable {
  readonly isTTY = true;
  rows = 24;
  written = "";

  constructor(public columns: number) {
    super();
  }

  override _write(chunk: Buffer, _: string, done: () => void): void {
    this.written += chunk.toString();
    done();
  }
}

function editor(columns: number) {
  const screen = new Screen(columns);
  const input = Object.assign(new EventEmitter(), { pause() {}, resume() {}, setRawMode() {}, isTTY: true });
  const readline = createInterface({
    input: input as unknown as NodeJS.ReadableStream,
    output: screen,
    terminal: true,
  });
  countGraphemes(readline, screen);
  return { screen, readline };
}

/** How many rows up the text moves the cursor. */
const rowsUp = (text: string) =>
  text.split("\x1b[").reduce((sum, part) => sum + Number(/^(\d+)A/.exec(part)?.[1] ?? 0), 0);

test("families and flags at the edge take one row: nothing above is erased", () => {
  const { screen, readline } = editor(20);
  readline.prompt();
  for (const letter of "👨‍👩‍👧".repeat(8)) readline.write(letter);
  expect(readline.getCursorPos()).toEqual({ rows: 0, cols: 18 });
  readline.write(null, { name: "left" });
  expect(rowsUp(screen.written)).toBe(0);
  readline.close();
});

test("a window that grows is drawn from the row where the line begins now", () => {
  const { screen, readline } = editor(20);
  readline.prompt();
  readline.write("x".repeat(50));
  readline.write(null, { name: "left" });
  screen.written = "";
  screen.columns = 80;
  screen.emit("resize");
  expect(rowsUp(screen.written)).toBe(0);
  readline.close();
});
