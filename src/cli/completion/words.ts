/** What can be typed, from the flag tables: names of flags, and values where they are known. */
import type { Command } from "../command";
import { type Flag, isBare, namedFlags, positionalFlags, spelled } from "../flags";

export const shells = ["bash", "zsh", "fish"] as const;
export type Shell = (typeof shells)[number];

export interface CompletionSource {
  commands: readonly Command[];
  /** Words beside the commands, with what they do. */
  beside: readonly { name: string; summary: string }[];
  /** Topics of help. */
  topics: readonly string[];
}

/** Prints the names of models, one a line. */
export const listModels = "mlxlm completion models 2>/dev/null";

/** What a word may be: one of some, the name of a model or a file, a file, a folder, or anything. */
export type Words = readonly string[] | "models" | "files" | "anything";

export interface CompletedFlag {
  /** `--max-tokens` */
  long: string;
  /** `-m` */
  short: readonly string[];
  description: string;
  /** What its value is; null for one that takes none. */
  value: Words | null;
  /** It takes several values. */
  many: boolean;
}

export interface CompletedCommand {
  name: string;
  summary: string;
  flags: CompletedFlag[];
  /** The words that its first may be: `list|info|rm NAME …`. */
  first: readonly string[];
  /** What other words that stand alone are. */
  alone: Words;
}

export function completedCommand(command: Command): CompletedCommand {
  const { name, summary, flags } = command;
  const first = subcommands(command);
  const isModel = first.length > 0 || positionalFlags(flags).some((one) => takesModel(flags[one]!));
  return {
    name,
    summary,
    first,
    alone: isModel ? "models" : "files",
    flags: namedFlags(flags).flatMap((key) => {
      const flag = flags[key]!;
      if (flag.notYet) return [];
      const short = (flag.alias ?? []).map((alias) => `-${alias}`);
      return [
        {
          long: spelled(key),
          short,
          description: flag.description,
          value: flag.kind === "switch" ? null : valuesOf(flag),
          many: flag.kind === "list",
        },
      ];
    }),
  };
}

const takesModel = (flag: Flag) => "placeholder" in flag && flag.placeholder === "MODEL";

function valuesOf(flag: Flag): Words {
  if (flag.kind === "choice") return flag.choices;
  if (flag.kind === "truth") return ["True", "False"];
  if (takesModel(flag)) return "models";
  return flag.kind === "path" || takesFiles(flag) ? "files" : "anything";
}

const takesFiles = (flag: Flag) => flag.kind === "list" && flag.placeholder.startsWith("FILE");

function subcommands({ flags }: Command): string[] {
  const bare = Object.values(flags).find(isBare);
  const [first] = bare && "placeholder" in bare ? bare.placeholder.split(" ") : [];
  return first?.includes("|") ? first.split("|") : [];
}
