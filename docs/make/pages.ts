/** The generated parts of the docs: from the flag tables, the topics of help and the catalogue of model types. */
import { builtIns } from "../../cmd/built-ins";
import type { Command } from "../../src/cli/command";
import { type Flag, globalFlags, isBare, spelled } from "../../src/cli/flags";
import { cachesInWords, ggufInWords } from "../../src/cli/model-types";
import { type Block, type Topic, topics } from "../../src/cli/topics";
import { readableNames } from "../../src/convert/gguf/types";
import type { CatalogueEntry } from "../../src/models/catalogue";

/** A table; bars in cells would end them. */
function table(headings: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  return [line(headings), `|${"---|".repeat(headings.length)}`, ...rows.map(line)].join("\n");
}

const code = (text: string) => `\`${text}\``;
const shell = (lines: readonly string[]) => `\`\`\`sh\n${lines.join("\n")}\n\`\`\``;

/** `--max-tokens N`, `-m` */
function spellings(name: string, flag: Flag): string {
  if (isBare(flag) && "placeholder" in flag) return code(flag.placeholder);
  const value = flag.kind === "switch" ? "" : ` ${flag.kind === "choice" ? flag.choices.join("|") : flag.placeholder}`;
  return [code(spelled(name) + value), ...(flag.alias ?? []).map((alias) => code(`-${alias}`))].join(", ");
}

function remarks(flag: Flag): string {
  const alone = "positional" in flag && flag.positional ? "; may stand without its name" : "";
  const needed = "required" in flag && flag.required ? "; required" : "";
  return `${flag.description}${alone}${needed}${flag.notYet ? "; not available yet" : ""}`.replaceAll("\\", "\\\\");
}

const standard = (flag: Flag) =>
  "default" in flag && flag.default !== undefined && flag.default !== "" ? code(String(flag.default)) : "";

/** What a command's page has of its own table. */
export function commandPart({ summary, examples, flags }: Command): string {
  const own = Object.entries(flags).filter(([key]) => !(key in globalFlags));
  const rows = own.map(([key, flag]) => [spellings(key, flag), remarks(flag), standard(flag)]);
  const global = Object.entries(globalFlags).map(([key, flag]) => [spellings(key, flag), remarks(flag)]);
  return [
    `${summary}.`,
    shell(examples),
    "## Flags",
    table(["flag", "what it does", "default"], rows),
    `Of every command: ${global.map(([flag, what]) => `${flag} (${what})`).join(", ")}.`,
  ].join("\n\n");
}

/** The list of commands. */
export function commandList(loaded: readonly Command[]): string {
  const rows = loaded.map(({ name, summary }) => [`[${name}](${name}.md)`, summary]);
  const beside = Object.values(builtIns).map(({ words, summary }) => [code(`mlxlm ${words}`), summary]);
  return [
    table(["command", "what it does"], rows),
    "Beside them:",
    table(["words", "what they do"], [...beside, [code("mlxlm help TOPIC"), topicLinks()]]),
  ].join("\n\n");
}

const topicLinks = () => topics.map(({ name }) => `[${name}](../help/${name}.md)`).join(", ");

function block(one: Block): string {
  if (typeof one === "string") return one;
  if ("examples" in one) return shell(one.examples);
  return table(
    ["", ""],
    one.entries.map(([name, meaning]) => [code(name), meaning]),
  );
}

/** A whole page. */
export function topicPage({ name, summary, blocks }: Topic): string {
  return [`# ${name}: ${summary}`, `\`mlxlm help ${name}\` prints this page.`, ...blocks.map(block)].join("\n\n");
}

/** Model types by family. */
export function modelTable(entries: readonly CatalogueEntry[]): string {
  const sorted = [...entries].sort(
    (a, b) => a.family.localeCompare(b.family, "en") || a.model_type.localeCompare(b.model_type, "en"),
  );
  const yes = (is: boolean) => (is ? "yes" : "–");
  const rows = sorted.map((entry) => [
    entry.family,
    code(entry.model_type) + (entry.same_as === null ? "" : ` = ${code(entry.same_as)}`),
    cachesInWords(entry),
    entry.kv_bits === "none" ? "–" : entry.kv_bits,
    yes(entry.batching),
    entry.lora ? "LoRA, DoRA, full" : "–",
    entry.quantizers.join(", ") || "–",
    ggufInWords(entry).replace("-", "–"),
    yes(entry.mtp),
    entry.ranks === "none" ? "–" : entry.ranks,
  ]);
  const headings = [
    ...["family", "`model_type`", "caches", "`--kv-bits`", "batches", "fine-tuning", "learned quantizers"],
    ...["GGUF", "MTP", "ranks"],
  ];
  return `${entries.length} model types.\n\n${table(headings, rows)}`;
}

/** What GGUF files may hold. @param fuse the command that writes them */
export function ggufPart(entries: readonly CatalogueEntry[], fuse: Command): string {
  const { ggufType } = fuse.flags;
  const written = ggufType?.kind === "choice" ? ggufType.choices.map((type) => type.toUpperCase()) : [];
  const names = [...new Set(entries.flatMap(({ gguf }) => (gguf ? [gguf.architecture] : [])))].sort();
  const rows = names.map((name) => {
    const own = entries.filter(({ gguf, same_as }) => gguf?.architecture === name && same_as === null);
    const yes = (is: boolean) => (is ? "yes" : "–");
    return [
      code(name),
      own.map((one) => code(one.model_type)).join(", "),
      yes(own.some(({ gguf }) => gguf!.reads)),
      yes(own.some(({ gguf }) => gguf!.writes)),
    ];
  });
  return [
    `Types that are read: ${readableNames.join(", ")}. Types that are written: ${written.join(", ")}.`,
    table(["architecture in the file", "`model_type`", "read", "written"], rows),
  ].join("\n\n");
}
