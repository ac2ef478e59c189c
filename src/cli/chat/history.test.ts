import { afterAll, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { History, historySize } from "./history";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-history-"));
afterAll(() => rmSync(folder, { recursive: true }));

let count = 0;
const path = () => join(folder, `${count++}`, "chat_history");

function open(file: string) {
  const warnings: string[] = [];
  const history = new History((message) => warnings.push(message), file);
  return { history, warnings };
}

test("lines come back newest first, in a file of the user's own", () => {
  const file = path();
  const { history, warnings } = open(file);
  expect(history.load()).toEqual([]);
  for (const line of ["one", "two", "two", "", "  ", "日本\tx", "one"]) history.append(line);
  expect(open(file).history.load()).toEqual(["one", "日本\tx", "two", "one"]);
  expect(statSync(file).mode & 0o777).toBe(0o600);
  expect(statSync(dirname(file)).mode & 0o777).toBe(0o700);
  expect(warnings).toEqual([]);
});

test("a file that others could read is closed to them", () => {
  const file = path();
  mkdirSync(dirname(file));
  writeFileSync(file, "old\n", { mode: 0o644 });
  expect(open(file).history.load()).toEqual(["old"]);
  expect(statSync(file).mode & 0o777).toBe(0o600);
});

test("several chats at a time lose no line of each other", () => {
  const file = path();
  const chats = Array.from({ length: 4 }, () => open(file).history);
  for (const chat of chats) chat.load();
  for (let n = 0; n < 50; n++) for (const [i, chat] of chats.entries()) chat.append(`${i}.${n}`);
  expect(open(file).history.load().length).toBe(200);
});

test("what would harm a terminal, or is very long, is not kept nor played back", () => {
  const file = path();
  const { history } = open(file);
  for (const line of ["\x1b[2J", "a\rb", "x".repeat(5000)]) history.append(line);
  history.append("fine");
  expect(readFileSync(file, "utf8")).toBe("fine\n");
  writeFileSync(file, Buffer.concat([Buffer.from("good\n\x1b]0;title\x07\n"), Buffer.from([0xff, 0xfe, 10])]));
  expect(open(file).history.load()).toEqual(["\ufffd\ufffd", "good"]);
});

test("a large file is cut down to the latest lines", () => {
  const file = path();
  mkdirSync(dirname(file));
  writeFileSync(file, Array.from({ length: 200_000 }, (_, i) => `line ${i}\n`).join(""));
  const lines = open(file).history.load();
  expect(lines.length).toBe(historySize);
  expect(lines[0]).toBe("line 199999");
  expect(statSync(file).size).toBeLessThan(20_000);
  expect(statSync(file).mode & 0o777).toBe(0o600);
  expect(readdirSync(dirname(file))).toEqual(["chat_history"]);
  expect(open(file).history.load()).toEqual(lines);
});

test("where there can be no file it says so once, and goes on", () => {
  const file = path();
  mkdirSync(file, { recursive: true });
  const directory = open(file);
  expect(directory.history.load()).toEqual([]);
  directory.history.append("a");
  expect(directory.warnings).toEqual([`no history is kept in ${file}: it is no file`]);

  const blocked = join(folder, "blocked");
  writeFileSync(blocked, "");
  const { history, warnings } = open(join(blocked, "mlxlm/chat_history"));
  expect(history.load()).toEqual([]);
  history.append("a");
  history.append("b");
  expect(warnings.length).toBe(1);
});
