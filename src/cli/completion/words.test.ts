import { expect, test } from "bun:test";
import { command } from "../command";
import { flag } from "../flags";
import { completedCommand } from "./words";

test("flags that come later are no words; pictures and other files are", () => {
  const { flags } = completedCommand(
    command({
      name: "show",
      summary: "Show",
      examples: [],
      flags: {
        pictures: flag.list("which", { placeholder: "FILE …" }),
        words: flag.list("which", { placeholder: "WORD …" }),
        later: flag.switch("not now", { notYet: true }),
      },
      async run() {},
    }),
  );
  const own = flags.filter(({ long }) => ["--pictures", "--words", "--later"].includes(long));
  expect(own.map(({ long, value }) => [long, value])).toEqual([
    ["--pictures", "files"],
    ["--words", "anything"],
  ]);
});
