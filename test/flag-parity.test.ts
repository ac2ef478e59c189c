/**
 * Every flag of mlx_lm 0.32.2, as its argparse parsers have them (test/oracle/flags.py), beside ours: the same name, short
 * forms, kind, choices and default, or a row in the table of docs/from-mlx-lm.md that says what differs.
 */
import { expect, test } from "bun:test";
import { commands } from "../cmd/commands";
import type { Command } from "../src/cli/command";
import { type Flag, spelled } from "../src/cli/flags";
import { fixture } from "./parity/fixtures";

interface PythonFlag {
  names: string[];
  kind: string;
  default?: unknown;
  choices?: string[];
  required?: boolean;
}

const python = fixture<Record<string, PythonFlag[]>>("flags.json");
const page = await Bun.file(new URL("../docs/from-mlx-lm.md", import.meta.url)).text();

/** The first cells of the page's table of flags: `chat --seed`. */
const told = [...page.matchAll(/^\| `([a-z_]+ --[a-z-]+)` \|/gm)].map(([, name]) => name!);

/** What a kind of argparse's may be here. */
const kinds: Readonly<Record<string, readonly Flag["kind"][]>> = {
  str: ["text", "path", "choice", "json"],
  int: ["integer"],
  float: ["number"],
  switch: ["switch"],
  "yes or no": ["switch"],
  list: ["list"],
  json: ["json"],
  str2bool: ["truth"],
  function: ["text", "list"],
  _parse_size: ["text"],
};

/** What argparse has where nothing is given, and we leave open. */
const nothing = (value: unknown) => value === undefined || JSON.stringify(value) === "[]" || value === "{}";

/** How a flag differs from Python's; null where it does not. */
function difference(theirs: PythonFlag, { flags }: Command): string | null {
  const key = Object.keys(flags).find((name) => theirs.names.includes(spelled(name)));
  if (key === undefined) return "there is none";
  const ours = flags[key]!;
  if (ours.notYet) return "it is not available yet";
  const known = new Set([
    ...Object.keys(flags).map(spelled),
    ...Object.values(flags).flatMap(({ alias }) => (alias ?? []).map((one) => `-${one}`)),
  ]);
  const missing = theirs.names.filter((name) => !known.has(name));
  if (missing.length > 0) return `it has no ${missing.join(", ")}`;
  if (!kinds[theirs.kind]?.includes(ours.kind)) return `it is ${ours.kind}, not ${theirs.kind}`;
  const choices = "choices" in ours ? [...ours.choices].sort() : undefined;
  const theirChoices = theirs.choices && [...theirs.choices].sort();
  if (JSON.stringify(choices) !== JSON.stringify(theirChoices)) return `it may be ${choices}, not ${theirChoices}`;
  const standard = "default" in ours ? ours.default : undefined;
  const same = standard === theirs.default || (nothing(standard) && nothing(theirs.default));
  if (!same) return `its default is ${standard}, not ${theirs.default}`;
  const isRequired = "required" in ours && ours.required === true;
  return isRequired === (theirs.required ?? false) ? null : `it is ${isRequired ? "" : "not "}required`;
}

test("the oracle's flags are all there", () => {
  expect(Object.keys(python)).toHaveLength(17);
  expect(Object.values(python).flat()).toHaveLength(218);
});

for (const [name, flags] of Object.entries(python)) {
  test(`each flag of ${name} is mlx_lm's, or the page tells of it`, async () => {
    const { default: command } = await commands[name]!();
    const differing = flags.flatMap((one) => {
      const long = one.names.find((spelling) => spelling.startsWith("--"))!;
      const what = difference(one, command);
      return what === null ? [] : [[`${name} ${long}`, what] as const];
    });
    expect(differing.filter(([flag]) => !told.includes(flag))).toEqual([]);
    const stale = told.filter((flag) => flag.startsWith(`${name} `) && !differing.some(([one]) => one === flag));
    expect(stale).toEqual([]);
  });
}
