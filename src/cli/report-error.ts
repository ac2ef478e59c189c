/** Errors as a user sees them: what, where, the next step. */
import { writeFileSync } from "node:fs";
import { isatty } from "node:tty";
import { withDemoNamed } from "../demo/folder";
import { environment } from "../environment";
import { ExitCode, isLackOfMemory, UserError } from "../errors";
import { printable } from "../printable";
import { systemError } from "../system-errors";
import { fitting } from "./output";

export interface ReportOptions {
  json: boolean;
  /** Show the stack. */
  debug: boolean;
  /** The process ends with it. */
  isLast?: boolean;
}

/** Writes the error to stderr and returns the exit code that goes with it. */
export function reportError(error: unknown, { json, debug, isLast = false }: ReportOptions): ExitCode {
  const described = describe(error);
  const { code } = described;
  const message = withDemoNamed(described.message);
  const hint = described.hint && withDemoNamed(described.hint);
  // Messages hold names and texts out of files and hubs.
  const shown = (text: string) => (isatty(2) ? printable(text) : text);
  if (json) console.error(JSON.stringify({ error: { code, message, hint } }));
  else {
    console.error(fitting(`mlxlm: ${shown(message)}`));
    if (hint) console.error(fitting(`       ${shown(hint)}`));
  }
  if (isLast) tellLauncher(message);
  if (debug && error instanceof Error) console.error(shown(error.stack ?? ""));
  return code;
}

/** The launcher of a group compares what its processes end with, so that a user reads it once. */
function tellLauncher(message: string): void {
  const file = environment("MLXLM_LAST_WORDS");
  if (file === undefined) return;
  try {
    writeFileSync(file, message);
  } catch {
    // The launcher may be gone, and the file is no more than a convenience.
  }
}

function describe(error: unknown): { code: ExitCode; message: string; hint?: string } {
  if (error instanceof UserError) return { code: error.code, message: error.message, hint: error.hint };
  const text = error instanceof Error ? error.message : String(error);
  const ofSystem = systemError(error);
  if (ofSystem) return { code: ofSystem.code, message: ofSystem.message, hint: ofSystem.hint };
  if (isLackOfMemory(error)) {
    return {
      code: ExitCode.resources,
      message: `out of memory: ${text}`,
      hint: "Take a smaller or a quantized model, or a shorter prompt.",
    };
  }
  if (error instanceof Error && error.name === "MlxError") {
    return { code: ExitCode.failure, message: `MLX: ${text}`, hint: "With --debug you see where." };
  }
  if (/requires the JIT/.test(text)) {
    return {
      code: ExitCode.resources,
      message: "there is too little address space to run: native calls need Bun's compiler",
      hint: "Raise the limit: ulimit -v unlimited. BUN_JSC_useJIT must not be 0.",
    };
  }
  return {
    code: ExitCode.failure,
    message: `internal error: ${text}`,
    hint: "This is a defect of mlxlm. With --debug you see where.",
  };
}
