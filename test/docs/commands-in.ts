/** The command lines of mlxlm in a Markdown page. */

export interface DocumentedLine {
  /** Line of the page, from 1. */
  at: number;
  /** Behind the program's name. */
  words: string[];
}

const languages = ["sh", "bash", "console"];

/** Those in fenced blocks: every line of sh, the lines behind "$ " of console. */
export function commandsIn(page: string): DocumentedLine[] {
  const found: DocumentedLine[] = [];
  let language: string | null = null;
  let open = "";
  let began = 0;
  for (const [i, line] of page.split("\n").entries()) {
    const fence = /^\s*```(\w*)/.exec(line);
    if (fence) {
      language = language === null ? fence[1]! : null;
      open = "";
      continue;
    }
    if (language === null || !languages.includes(language)) continue;
    const typed = language === "console" && open === "" ? (/^\$ (.*)/.exec(line)?.[1] ?? null) : line;
    if (typed === null) continue;
    if (open === "") began = i + 1;
    open += typed;
    // Goes on below: behind a backslash, or within quotes.
    if (open.endsWith("\\")) {
      open = open.slice(0, -1);
      continue;
    }
    const parts = shellCommands(open);
    if (parts === null) {
      open += "\n";
      continue;
    }
    for (const words of parts) {
      const own = ownWords(words);
      if (own) found.push({ at: began, words: own });
    }
    open = "";
  }
  return found;
}

/** Behind variables, prompts of other programs and the name of ours; null where it is another program. */
function ownWords(all: readonly string[]): string[] | null {
  const words = all.slice(all.findIndex((word) => !/^\w+=/.test(word) && !["time", "do", "exec"].includes(word)));
  if (["bunx", "npx"].includes(words[0]!)) words.shift();
  const [program = "", ...rest] = words;
  const named = /^mlx_?lm\.(\w+)$/.exec(program);
  if (named) return [named[1]!, ...rest];
  return /(^|\/)mlxlm$/.test(program) ? rest : null;
}

/** The simple commands of a shell line, without redirections; null where a quote stays open. */
function shellCommands(line: string): string[][] | null {
  const commands: string[][] = [[]];
  let word: string | null = null;
  let quote = "";
  let redirects = false;
  const finish = () => {
    if (word !== null && !redirects) commands.at(-1)!.push(word);
    if (word !== null) redirects = false;
    word = null;
  };
  for (let i = 0; i < line.length; i++) {
    const letter = line[i]!;
    if (quote !== "") {
      if (letter === quote) quote = "";
      else word += letter;
    } else if (letter === '"' || letter === "'") {
      quote = letter;
      word ??= "";
    } else if (letter === "#" && word === null) {
      break;
    } else if (/\s/.test(letter)) {
      finish();
      if (letter === "\n") commands.push([]);
    } else if (letter === "<" || letter === ">") {
      // The number of a descriptor belongs to it.
      if (word !== null && /^[0-9&]$/.test(word)) word = null;
      finish();
      if (line[i + 1] === ">" || line[i + 1] === "&") i++;
      redirects = true;
    } else if ("|;&".includes(letter) || letter === "(" || letter === ")") {
      finish();
      commands.push([]);
    } else {
      word = (word ?? "") + letter;
    }
  }
  if (quote !== "") return null;
  finish();
  return commands.filter(({ length }) => length > 0);
}
