import { expect, test } from "bun:test";
import { EventEmitter } from "node:events";
import type { ReadStream } from "node:tty";
import { Keyboard } from "./keyboard";

/** What the keyboard makes of bytes that come in these chunks. */
function read(chunks: readonly (string | Buffer)[]): string[] {
  const terminal = new EventEmitter();
  const keyboard = new Keyboard(terminal as unknown as ReadStream);
  const seen: string[] = [];
  keyboard.on("data", (text: string) => seen.push(`key ${text}`));
  keyboard.on("paste", (text: string) => seen.push(`paste ${text}`));
  keyboard.on("end", () => seen.push("end"));
  for (const chunk of chunks) terminal.emit("data", Buffer.from(chunk));
  terminal.emit("end");
  return seen.slice(0, -1).concat(seen.at(-1) === "end" ? [] : ["no end"]);
}

const [on, off] = ["\x1b[200~", "\x1b[201~"];

test.each([
  [["a"], ["key a"]],
  [["👩"], ["key 👩"]],
  [["\x1b[A"], ["key \x1b[A"]],
  [["ab"], ["paste ab"]],
  [["ab\r"], ["key ab\r"]],
  [[`${on}a\nb${off}`], ["paste a\nb"]],
  [[`x${on}a${off}\r`], ["key x", "paste a", "key \r"]],
  [[`${on}a\r\nb\rc${off}`], ["paste a\nb\nc"]],
  [[`${on}\tcode${off}`], ["paste \tcode"]],
  [[`${on}a\x1b[31mb\x03c${off}`], ["paste a[31mbc"]],
  [[`${on}a${off}${on}b${off}`], ["paste a", "paste b"]],
  [[`${on}${off}`], ["paste "]],
  [["\x1b"], ["key \x1b"]],
  [
    [`${on}a`, "\x03", "b"],
    ["key \x03", "key b"],
  ],
])("%j is read as %j", (chunks, expected) => {
  expect(read(chunks)).toEqual(expected);
});

test("however the bytes are split, the same is read", () => {
  const text = `é${on}läng\nere Zeilen 日本${off}`;
  const bytes = Buffer.from(text);
  const whole = ["key é", "paste läng\nere Zeilen 日本"];
  // A lone escape is a key of its own, so no chunk may end there.
  const splits = Array.from({ length: bytes.length - 1 }, (_, i) => i + 1).filter(
    (at) => bytes[at - 1] !== 0x1b || at > 5,
  );
  expect(splits.length).toBeGreaterThan(20);
  for (const at of splits) expect(read([bytes.subarray(0, at), bytes.subarray(at)])).toEqual(whole);
});
