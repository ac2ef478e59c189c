/** What a person reads of a training, in mlx-lm's words. */
import { basename } from "node:path";
import { weightsName } from "./adapter-files";
import type { DatasetFacts, PackingFacts } from "./data";
import type { Settings } from "./settings";
import type { StepFigures, TrainingEvent } from "./trainer";

const thousands = (value: number) => Math.round(value).toLocaleString("en-US");

/** 1e-5 as Python's `.1e` writes it: 1.0e-05. */
const scientific = (value: number) => value.toExponential(1).replace(/e([+-])(\d)$/, "e$10$2");

/** The facts of a run, one a line. */
export function headerLines(settings: Settings): string[] {
  const { fine_tune_type: type, num_layers, lora_parameters, lr_schedule, learning_rate } = settings;
  const rank = lora_parameters ? ` · rank ${lora_parameters.rank}` : "";
  // mlx-lm names the plain rate beside a schedule too, which is not in use then.
  const rate = lr_schedule ? `lr ${lr_schedule.name}` : `lr ${scientific(learning_rate)}`;
  const rows = {
    model: settings.model,
    type: `${type} · ${num_layers} layers${rank}`,
    dataset: settings.data,
    optimizer: `${settings.optimizer} · ${rate}`,
    "batch · iters": `${settings.batch_size} · ${thousands(settings.iters)}`,
    "max seq": thousands(settings.max_seq_length),
  };
  const width = Math.max(...Object.keys(rows).map((name) => name.length));
  return Object.entries(rows).map(([name, value]) => `  ${name.padEnd(width)}   ${value}`);
}

/** The longest bar of a histogram, where there is room for it. */
const longestBar = 24;

/**
 * What there is to know of a dataset before training: its size, how long its samples are, what is lost of them.
 * @param columns of the terminal: bars are shorter on a narrow one
 */
export function dataLines(split: string, facts: DatasetFacts, maxSeqLength: number, columns = 80): string[] {
  const { rows, tokens, shortest, median, longest, histogram } = facts;
  const lengths = `${thousands(shortest)} to ${thousands(longest)} a row, ${thousands(median)} in the middle`;
  const most = Math.max(...histogram.map((bin) => bin.rows));
  const ends = histogram.map((bin) => thousands(bin.up_to));
  const width = ends.at(-1)?.length ?? 0;
  const aroundBar = "          up to ".length + width + 4 + thousands(most).length;
  const barWidth = Math.max(1, Math.min(longestBar, columns - aroundBar));
  const bars = histogram.map((bin, i) => {
    const bar = "█".repeat(Math.ceil((bin.rows / most) * barWidth));
    return `          up to ${ends[i]!.padStart(width)}  ${bar.padEnd(barWidth)}  ${thousands(bin.rows)}`;
  });
  const lines = [`  ${split.padEnd(5)}   ${thousands(rows)} rows, ${thousands(tokens)} tokens: ${lengths}`, ...bars];
  if (facts.truncated > 0) {
    const share = ((facts.tokens_cut / tokens) * 100).toFixed(1);
    lines.push(
      `          ${thousands(facts.truncated)} rows are cut to ${thousands(maxSeqLength)} tokens, which loses ${share} % of all tokens: --max-seq-length`,
    );
  }
  if (facts.without_loss > 0) {
    lines.push(`          ${thousands(facts.without_loss)} rows teach nothing: their prompts alone are that long`);
  }
  return lines;
}

/** What packing is worth. */
export function packingLine(facts: PackingFacts): string {
  const { samples, rows, filled, filled_by_padding } = facts;
  const percent = (share: number) => `${(share * 100).toFixed(1)} %`;
  const size = `${thousands(samples)} rows of data in ${thousands(rows)}`;
  return `  packed  ${size}: ${percent(filled)} of what is read are their tokens, ${percent(filled_by_padding)} with padding`;
}

export const columnsLine = "  iter   train_loss     tok/s     tokens";

/** Lines for events; it remembers the last loss, to say where losses go. */
export class ReportLines {
  private lastLoss = Number.POSITIVE_INFINITY;

  /** The event as a line; null for one that says nothing new. */
  lineOf(event: TrainingEvent): string | null {
    if (event.type === "saved") {
      const name = basename(event.path);
      return name === weightsName ? null : `  save  ${name}`;
    }
    if (event.type === "val") {
      const number = `${event.iteration + 1}`.padStart(4);
      return `  ${number}    val ${event.loss.toFixed(3).padStart(5)}    ${event.time.toFixed(2)}s`;
    }
    const arrow = event.loss <= this.lastLoss ? "▼" : "▲";
    this.lastLoss = event.loss;
    const loss = `${event.loss.toFixed(3).padStart(5)} ${arrow}`;
    const speed = thousands(event.tokens_per_second).padStart(5);
    const tokens = `${(event.trained_tokens / 1000).toFixed(1).padStart(5)}k`;
    return `  ${`${event.iteration}`.padStart(4)}    ${loss}    ${speed}    ${tokens}`;
  }
}

/** How a training goes, beside its bar. */
export function stepNote({ loss, tokens_per_second, peak_memory }: StepFigures): string {
  return `loss ${loss.toFixed(3)}  ${thousands(tokens_per_second)} tok/s  ${peak_memory.toFixed(2)} GB`;
}

export function testLine({ loss, perplexity }: { loss: number; perplexity: number }): string {
  return `Test loss ${loss.toFixed(3)}, Test ppl ${perplexity.toFixed(3)}.`;
}
