/** A command: its flags and what it does with them. */
import { type FlagTable, globalFlags, type Values } from "./flags";
import type { Output } from "./output";

export interface Context<T extends FlagTable> {
  flags: Values<T & typeof globalFlags>;
  out: Output;
  /** Aborted by the first Ctrl-C. */
  signal: AbortSignal;
}

export interface CommandSpec<T extends FlagTable> {
  name: string;
  /** One line for the list of commands. */
  summary: string;
  /** Command lines, most useful first. */
  examples: readonly string[];
  flags: T;
  /** It computes with MLX: the device that the user names is set before it runs. */
  computes?: boolean;
  /** It may run as several ranks, which all do the same: a model is divided among them. */
  ranks?: boolean;
  /** Its steps may take many seconds: the first Ctrl-C is answered at once, in the middle of one too. */
  hasLongSteps?: boolean;
  /** Its first word that is no flag begins another command, with flags of its own: they become its flag `command`. */
  wraps?: boolean;
  /** It tells what is wrong with the environment itself: that does not end it before it begins. */
  diagnoses?: boolean;
  run(context: Context<T>): Promise<void>;
}

/** A command as the dispatcher sees it. */
export interface Command {
  name: string;
  summary: string;
  examples: readonly string[];
  flags: FlagTable;
  computes?: boolean;
  hasLongSteps?: boolean;
  diagnoses?: boolean;
  wraps?: boolean;
  ranks?: boolean;
  run(context: { flags: Record<string, unknown>; out: Output; signal: AbortSignal }): Promise<void>;
}

/** Defines a command; the global flags are added to its own. */
export function command<const T extends FlagTable>(spec: CommandSpec<T>): Command {
  return { ...spec, flags: { ...spec.flags, ...globalFlags } } as unknown as Command;
}
