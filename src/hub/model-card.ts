/** README.md of a model: facts that the hub reads, between `---` lines, and a text for people. */
import { existsSync } from "node:fs";
import { join } from "node:path";
import { parse, stringify } from "yaml";
import { version } from "../../package.json";
import { UserError } from "../errors";
import { inputTextSync } from "../input-file";

type Facts = Record<string, unknown>;

const block = /^\s*---\r?\n(?:([\s\S]*?)\r?\n)?---[ \t]*(?:\r?\n|$)/;

/** The facts; null where there are none. @throws where they cannot be read */
function readFacts(text: string): Facts | null {
  const found = block.exec(text);
  if (!found) return null;
  const facts: unknown = parse(found[1] ?? "", { maxAliasCount: 100 }) ?? {};
  if (typeof facts !== "object" || Array.isArray(facts)) throw new Error("it is no list of names and values");
  return { ...facts };
}

const writeFacts = (facts: Facts) => `---\n${stringify(facts, { indentSeq: false })}---\n`;

/** Facts of a model that MLX runs, by those of what it was made from. */
function ofMlx(facts: Facts): Facts {
  const tags = Array.isArray(facts.tags) ? facts.tags : [];
  return {
    ...facts,
    library_name: "mlx",
    pipeline_tag: "text-generation",
    tags: tags.includes("mlx") ? tags : [...tags, "mlx"],
  };
}

/** The card of a model that is saved: facts alone. @param original text of the card of what it was made from, or "" */
export function savedCard(original: string, base: string | undefined): string {
  let facts: Facts | null = null;
  try {
    facts = readFacts(original);
  } catch {
    // A card that cannot be read says nothing; the model can still be saved.
  }
  return writeFacts({ ...ofMlx(facts ?? { language: "en" }), ...(base === undefined ? {} : { base_model: base }) });
}

export interface CardOptions {
  /** The model's folder. */
  folder: string;
  /** Full name of the repo that it goes to. */
  repo: string;
  /** Address of the public hub, which the text links to. */
  hub: string;
}

/**
 * The card that goes to the hub with a folder: its facts as they are, and a text on where it comes from and its use.
 * @param text of the folder's card, or ""
 * @throws UserError for facts that the hub could not read either
 */
export function uploadedCard(text: string, { folder, repo, hub }: CardOptions): string {
  let facts: Facts | null;
  try {
    facts = readFacts(text);
  } catch (error) {
    throw new UserError(`the facts at the top of ${join(folder, "README.md")} cannot be read: ${firstLine(error)}`, {
      hint: "Correct them (YAML between two lines ---), or delete the file: a new one is written.",
      cause: error,
    });
  }
  const head = facts ? block.exec(text)![0].trim() : writeFacts(ofMlx({})).trim();
  const origins = [facts?.base_model].flat().filter((name) => typeof name === "string");
  const links = origins.map((name) => `[${name}](${hub}/${name})`).join(", ");
  const origin = links === "" ? "" : `${links} in the format of MLX, converted by mlxlm **${version}**.\n\n`;
  return `${head}\n\n# ${repo}\n\n${origin}${usage(folder, repo)}`;
}

const firstLine = (error: unknown) => (error instanceof Error ? error.message : String(error)).split("\n")[0]!;

function usage(folder: string, repo: string): string {
  const prompt = takesChats(folder)
    ? `messages = [{"role": "user", "content": "hello"}]
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True)`
    : `prompt = "hello"`;
  return `## Use with mlx

\`\`\`bash
mlxlm generate --model ${repo} --prompt "hello"
\`\`\`

or, with mlx-lm in Python:

\`\`\`python
from mlx_lm import generate, load

model, tokenizer = load("${repo}")
${prompt}
print(generate(model, tokenizer, prompt))
\`\`\`
`;
}

/** Whether a chat template comes with the tokenizer: as a file of its own, or in its settings. */
function takesChats(folder: string): boolean {
  if (existsSync(join(folder, "chat_template.jinja")) || existsSync(join(folder, "chat_template.json"))) return true;
  try {
    const settings = JSON.parse(inputTextSync(join(folder, "tokenizer_config.json")) ?? "null") as Facts | null;
    return typeof settings === "object" && settings?.chat_template !== undefined;
  } catch {
    return false;
  }
}
