/** Proofs of what is written where: pipes, closed descriptors, narrow terminals, no colours. */
import { TerminalProgram } from "../terminal";
import { answered, type Bench, expect, type Proof, question } from "./bench";

const escapeCode = "\u001b";

/** All that a command writes to a terminal of so many columns. */
async function onTerminal(
  bench: Bench,
  words: readonly string[],
  columns: number,
  env: Record<string, string> = {},
): Promise<string> {
  const program = new TerminalProgram(bench.line(words), {
    columns,
    env: { ...bench.environment(), TERM: "xterm", CI: "", ...env },
  });
  const code = await program.ended();
  expect(code === 0, `${words.join(" ")} at ${columns} columns`, { code, out: program.screen });
  return program.screen;
}

/** Runs it by a shell that redirects. */
const shell = (redirections: string) => ["sh", "-c", `exec "$@" ${redirections}`, "sh"];

export const terminalProofs: readonly Proof[] = [
  {
    name: "no-terminal",
    async prove(bench) {
      const ran = await bench.run(question, { through: ["setsid", "--wait"] });
      answered(ran, "without a terminal");
      expect(!`${ran.out}${ran.problems}`.includes(escapeCode), "escape codes in a pipe", ran);
      return undefined;
    },
  },
  {
    name: "closed-descriptors",
    async prove(bench) {
      for (const redirections of [">&-", "<&- >&- 2>&-", "2>&-", "<&-"]) {
        const ran = await bench.run(question, { through: shell(redirections) });
        expect(ran.code === 0, `with ${redirections}`, ran);
      }
      const gone = await bench.run(["--help"], { through: ["sh", "-c", '"$@" | head -n 1', "sh"] });
      expect(gone.code === 0 && gone.problems === "", "a reader that went away", gone);
      return undefined;
    },
  },
  {
    name: "narrow-terminals",
    async prove(bench) {
      await bench.run(question);
      for (const columns of [80, 40]) {
        for (const words of [["--help"], ["generate", "--help"], question, ["paths"]]) {
          const screen = Bun.stripANSI(await onTerminal(bench, words, columns));
          const lines = screen.split(/\r?\n|\r/);
          // A path has no place to break.
          const long = lines.find((line) => Bun.stringWidth(line) > columns && !line.includes("/"));
          expect(long === undefined, `wider than ${columns} columns: ${long}`);
        }
      }
      return undefined;
    },
  },
  {
    name: "no-color",
    async prove(bench) {
      const colour = new RegExp(`${escapeCode}\\[[0-9;]*m`);
      for (const words of [["--help"], question]) {
        const screen = await onTerminal(bench, words, 80, { NO_COLOR: "1" });
        expect(!colour.test(screen), `colours in spite of NO_COLOR: ${JSON.stringify(screen.slice(0, 300))}`);
      }
      return undefined;
    },
  },
];
