/** The docs: generated parts are what the tables say, command lines are understood, links lead somewhere. */
import { describe, expect, test } from "bun:test";
import { existsSync, readFileSync, statSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { builtIns, topicNames } from "../../cmd/built-ins";
import { commands, loadedCommands } from "../../cmd/commands";
import { madeFiles, root } from "../../docs/make/main";
import { parseFlags, splitCommand } from "../../src/cli/parse";
import { commandsIn } from "./commands-in";

const pages = ["*.md", "docs/**/*.md"].flatMap((one) => [...new Bun.Glob(one).scanSync({ cwd: root })]).sort();
const read = (path: string) => readFileSync(join(root, path), "utf8");

test("bun run docs would change nothing", async () => {
  const made = await madeFiles();
  const stale = [...made].filter(([path, text]) => !existsSync(join(root, path)) || read(path) !== text);
  expect(stale.map(([path]) => path)).toEqual([]);
  // A model of each type is made.
}, 60_000);

test("there is no page of a command that there is not", async () => {
  const names = (await loadedCommands()).map(({ name }) => `docs/commands/${name}.md`);
  const written = pages.filter((path) => path.startsWith("docs/commands/") && !path.endsWith("README.md"));
  expect(written).toEqual(names.sort());
});

describe("command lines", () => {
  const loaded = loadedCommands();

  /** What is wrong with a command line; null where it would be understood. */
  async function problem([name, ...words]: readonly string[]): Promise<string | null> {
    if (name === undefined || ["--help", "--version", "-h"].includes(name)) return null;
    if (Object.hasOwn(builtIns, name)) return null;
    const command = (await loaded).find((one) => one.name === name);
    if (name === "help") {
      const known = [...Object.keys(commands), ...Object.keys(builtIns), ...topicNames, "TOPIC", undefined];
      return known.includes(words[0]) ? null : `there is no help of ${words[0]}`;
    }
    if (!command) return `there is no command ${name}`;
    if (words.includes("--help")) return null;
    try {
      parseFlags(command.wraps ? splitCommand(words, command.flags)[0] : words, command.flags, name);
      return null;
    } catch (error) {
      return (error as Error).message;
    }
  }

  test.each(pages)("of %s parse", async (path) => {
    const problems: string[] = [];
    for (const { at, words } of commandsIn(read(path))) {
      const what = await problem(words);
      if (what) problems.push(`${path}:${at}: ${words.join(" ")}: ${what}`);
    }
    expect(problems).toEqual([]);
  });

  test("are found, and a wrong one is told", async () => {
    const page =
      '```sh\nA=1 mlxlm generate demo "a b" | head > x  # c\nmlx_lm.chat \\\n  demo\n```\n```console\n$ mlxlm models list; ls\nmlxlm x\n```';
    expect(commandsIn(page)).toEqual([
      { at: 2, words: ["generate", "demo", "a b"] },
      { at: 3, words: ["chat", "demo"] },
      { at: 7, words: ["models", "list"] },
    ]);
    expect(await problem(["generate", "--bogus"])).toBe("there is no flag --bogus");
    expect(await problem(["bogus"])).toBe("there is no command bogus");
  });

  test("in the text name commands", async () => {
    const present = pages.filter((path) => path !== "CHANGELOG.md");
    const wrong = present.flatMap((path) =>
      [...read(path).matchAll(/`mlxlm ([a-z_]+)[^`]*`/g)]
        .map(([, name]) => name!)
        .filter((name) => name !== "help" && !Object.hasOwn(commands, name) && !Object.hasOwn(builtIns, name))
        .map((name) => `${path}: mlxlm ${name}`),
    );
    expect(wrong).toEqual([]);
  });
});

describe("links", () => {
  /** As GitHub makes them of headings. */
  const anchor = (heading: string) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N} _-]/gu, "")
      .replaceAll(" ", "-");

  const anchors = (path: string) => [...read(path).matchAll(/^#+ (.+)$/gm)].map(([, heading]) => anchor(heading!));

  test.each(pages)("of %s lead somewhere", (path) => {
    const text = read(path).replaceAll(/```[\s\S]*?```/g, "");
    const broken = [...text.matchAll(/\]\(([^)\s]+)\)/g)]
      .map(([, target]) => target!)
      .filter((target) => !/^[a-z]+:/.test(target))
      .filter((target) => {
        const [file = "", name] = target.split("#");
        const to = file === "" ? path : relative(root, join(root, dirname(path), file));
        if (!existsSync(join(root, to))) return true;
        return name !== undefined && !(statSync(join(root, to)).isFile() && anchors(to).includes(name));
      });
    expect(broken).toEqual([]);
  });
});
