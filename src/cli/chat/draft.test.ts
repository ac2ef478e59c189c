import { expect, test } from "bun:test";
import { Draft } from "./draft";

/** The messages that lines make; lines after "paste:" come in one paste, but for the last of them. */
function messages(lines: readonly string[]): (string | null)[] {
  const draft = new Draft();
  const pasted = lines.indexOf("paste:");
  const found = lines
    .filter((line) => line !== "paste:")
    .map((line, i, all) => draft.add(line, { more: pasted >= 0 && i >= pasted && i < all.length - 1 }))
    .filter((message) => message !== null);
  return draft.empty ? found : [...found, null];
}

test.each([
  [["one"], ["one"]],
  [
    ["one", "two"],
    ["one", "two"],
  ],
  [[""], [""]],
  [['"""a', "b", 'c"""'], ["a\nb\nc"]],
  [
    ['"""', "a", "", "b", '"""', "c"],
    ["a\n\nb", "c"],
  ],
  [['"""a"""'], ["a"]],
  [['/set system """a', 'b"""'], ["/set system a\nb"]],
  [['""""""'], [""]],
  [['"""', '"""'], [""]],
  [['"""a', '  """  '], ["a\n  "]],
  [['say """ twice'], ['say """ twice']],
  [['"""a', "b"], [null]],
  [['/system """You', 'are"""'], ["/system You\nare"]],
  [['/system """', "You", '"""'], ["/system \nYou"]],
  [["paste:", "a", "b", "c"], ["a\nb\nc"]],
  [["paste:", "a", "b", ""], ["a\nb"]],
  [["paste:", '"""a', 'b"""', "c", ""], ["a\nb\nc"]],
  [['"""', "paste:", "a", "b", '"""'], ["a\nb"]],
])("%p are the messages %p", (lines, expected) => {
  expect(messages(lines)).toEqual(expected);
});

test("the end of input completes a message; a cleared draft is empty", () => {
  const draft = new Draft();
  draft.add('"""a');
  draft.add("b");
  expect(draft.take()).toBe("a\nb");
  expect(draft.empty).toBe(true);
  draft.add('"""a');
  draft.clear();
  expect(draft.add("b")).toBe("b");
});
