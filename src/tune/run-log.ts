/**
 * Figures of a training for Weights & Biases and SwanLab, as lines of JSON in a file, for want of well kept clients in
 * JavaScript. Records have the names that mlx-lm sends.
 */
import { existsSync } from "node:fs";
import { appendFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { replaceFile } from "../atomic-file";
import { ExitCode, UserError } from "../errors";
import { nearest } from "../nearest";
import type { Settings } from "./settings";
import type { TrainingEvent } from "./trainer";

/** Services by name, with the folder that their own clients would log to. */
const services: Readonly<Record<string, string>> = { wandb: "wandb", swanlab: "swanlog" };

/** Paths of the files that `report_to` asks for, below the adapter's folder. @throws UserError for an unknown service */
export function logPaths({ report_to, adapter_path }: Pick<Settings, "report_to" | "adapter_path">): string[] {
  const names = (report_to ?? "").split(",").map((name) => name.trim().toLowerCase());
  return names.filter(Boolean).map((name) => {
    const folder = Object.hasOwn(services, name) ? services[name] : undefined;
    if (folder !== undefined) return join(adapter_path, folder, `${runName(adapter_path)}.jsonl`);
    const [similar] = nearest(name, Object.keys(services), 1);
    throw new UserError(`there is no service "${name}" to report to`, {
      code: ExitCode.usage,
      hint: similar ? `Did you mean ${similar}?` : `Take ${Object.keys(services).join(", ")}, or both with a comma.`,
    });
  });
}

/** As mlx-lm names a run. */
const runName = (adapterPath: string) => basename(resolve(adapterPath));

export class RunLog {
  /** Lines are written one after the other, and all before `end` returns. */
  private writing: Promise<void>;
  private problem: unknown = null;

  /** @param iteration what came after this one is dropped from a file that is there: the training goes on from it */
  constructor(
    private readonly paths: readonly string[],
    settings: Settings,
    { iteration }: { iteration: number },
  ) {
    const { project_name: project, adapter_path } = settings;
    const first = { project, name: runName(adapter_path), config: settings };
    this.writing = this.guarded(() => Promise.all(paths.map((path) => begin(path, first, iteration))));
  }

  add(event: TrainingEvent): void {
    const record = recordOf(event);
    if (record === null || this.paths.length === 0) return;
    const line = `${JSON.stringify(record)}\n`;
    const before = this.writing;
    this.writing = before.then(() => this.guarded(() => Promise.all(this.paths.map((path) => appendFile(path, line)))));
  }

  /** Waits for the last line. Returns what kept lines from being written, null where nothing did. */
  async end(): Promise<unknown> {
    await this.writing;
    return this.problem;
  }

  /** A log that cannot be written is no reason to lose a training. */
  private async guarded(write: () => Promise<unknown>): Promise<void> {
    try {
      await write();
    } catch (error) {
      this.problem ??= error;
    }
  }
}

/** Starts the file, or keeps of it what lies before the step that the training goes on with. */
async function begin(path: string, first: object, iteration: number): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  const lines = iteration > 0 && existsSync(path) ? (await readFile(path, "utf8")).split("\n").slice(1) : [];
  const kept = lines.filter((line) => isWithin(line, iteration));
  await replaceFile(path, (temporary) => writeFile(temporary, `${[JSON.stringify(first), ...kept].join("\n")}\n`));
}

function isWithin(line: string, iteration: number): boolean {
  try {
    return (JSON.parse(line) as { iteration: number }).iteration <= iteration;
  } catch {
    // Cut off when the process ended.
    return false;
  }
}

/** The event under mlx-lm's names; null for one that it does not report. */
function recordOf(event: TrainingEvent): object | null {
  if (event.type === "saved") return null;
  const { type, loss, ...rest } = event;
  if (type === "train") return { ...rest, train_loss: loss };
  const { iteration, time } = event;
  return { iteration, val_loss: loss, val_time: time };
}
