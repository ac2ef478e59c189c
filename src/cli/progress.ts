/** Progress bars: of one line on a terminal, lines from time to time elsewhere. */

export interface ProgressOptions {
  unit: "tok" | "bytes" | "it";
  total?: number;
}

/** Where bars are shown. */
export type Stage =
  /** A terminal: one line that is drawn anew. */
  | { kind: "line"; write(text: string): void; columns(): number }
  /** A pipe or a log: a line now and then. */
  | { kind: "log"; write(text: string): void }
  /** Nowhere. */
  | { kind: "none" };

/** Shorter work shows no bar. */
const quietFor = 1000;

/** Milliseconds between two pictures of the bar, and between two lines of a log. */
const interval = { line: 100, log: 10_000, none: 0 };

export class Progress {
  /** When the present stretch of work began, and how much was done by then; null where that is not known yet. */
  private began = performance.now();
  private from: number | null = null;
  private last = 0;
  private drawn = performance.now();
  private width = 0;

  constructor(
    private readonly label: string,
    private readonly options: ProgressOptions,
    private readonly stage: Stage,
  ) {}

  /** Whether its line is on the screen. */
  get shown(): boolean {
    return this.width > 0;
  }

  /** @param note what else there is to say, at the end of the line */
  at(done: number, total = this.options.total, note = ""): void {
    const { stage } = this;
    if (stage.kind === "none") return;
    const now = performance.now();
    this.measureFrom(done, now);
    if (now - this.began < quietFor || now - this.drawn < interval[stage.kind]) return;
    this.drawn = now;
    const facts = this.facts(done, total, (now - this.began) / 1000);
    if (stage.kind === "log") {
      stage.write(`${layout(facts, note, 0)}\n`);
      return;
    }
    const line = fitted(facts, note, stage.columns() - 1);
    stage.write(`\r${line}${" ".repeat(Math.max(0, this.width - line.length))}`);
    this.width = line.length;
  }

  /** Clears the line. Work that goes on afterwards is timed from here. */
  end(): void {
    const { stage } = this;
    // A window that became narrower has wrapped the line: what is left of it can be cleared only.
    const width = stage.kind === "line" ? Math.min(this.width, stage.columns() - 1) : 0;
    if (stage.kind === "line" && width > 0) stage.write(`\r${" ".repeat(width)}\r`);
    this.width = 0;
    this.began = performance.now();
    this.drawn = this.began;
    if (this.from !== null) this.from = this.last;
  }

  /** Work that begins anew, or goes on from an earlier run, has its clock from then on. */
  private measureFrom(done: number, now: number): void {
    if (this.from === null || done < this.last) {
      const isResumed = this.options.unit === "it" && done > 1;
      this.from = isResumed ? done : 0;
      if (isResumed || done === 0) this.began = now;
    }
    this.last = done;
  }

  private facts(done: number, total: number | undefined, seconds: number): Facts {
    const moved = done - (this.from ?? 0);
    const rate = moved > 0 ? this.rate(moved / seconds) : "";
    if (!total) return { label: this.label, share: null, amount: this.amount(done), rate, left: "" };
    const left = moved > 0 ? `${duration(((total - done) / moved) * seconds)} left` : "";
    return { label: this.label, share: Math.min(1, done / total), amount: this.amountOf(done, total), rate, left };
  }

  private amount(count: number): string {
    return this.options.unit === "bytes" ? `${(count / 1e6).toFixed(1)} MB` : `${count} ${this.options.unit}`;
  }

  private amountOf(done: number, total: number): string {
    const { unit } = this.options;
    if (unit === "bytes") return `${(done / 1e6).toFixed(1)} of ${(total / 1e6).toFixed(1)} MB`;
    return `${done} of ${total} ${unit}`;
  }

  /** Slow work is told in seconds for one. */
  private rate(perSecond: number): string {
    const { unit } = this.options;
    if (unit === "bytes") return `${this.amount(perSecond)}/s`;
    if (perSecond >= 1) return `${Math.round(perSecond)} ${unit}/s`;
    return `${(1 / perSecond).toFixed(1)} s/${unit}`;
  }
}

/** What a bar tells, in words but for the share. */
interface Facts {
  label: string;
  /** Of all work, 0 to 1; null where nobody knows how much it is. */
  share: number | null;
  amount: string;
  rate: string;
  left: string;
}

/** @param cells of the drawn bar; 0 for none */
function layout({ label, share, amount, rate, left }: Facts, note: string, cells: number): string {
  const drawn = share !== null && cells > 0 ? `[${"#".repeat(Math.round(share * cells)).padEnd(cells, ".")}]` : "";
  const percent = share === null ? "" : `${(share * 100).toFixed(0)}%`;
  return [label, [drawn, percent].filter(Boolean).join(" "), amount, rate, left, note].filter(Boolean).join("  ");
}

/** As much of the line as there are columns for: a shorter bar, then fewer facts, then cut. */
function fitted(facts: Facts, note: string, columns: number): string {
  const lines = [
    ...[24, 20, 16, 12, 8, 0].map((cells) => layout(facts, note, cells)),
    layout({ ...facts, rate: "" }, note, 0),
    layout({ ...facts, rate: "" }, "", 0),
    layout({ ...facts, rate: "", amount: "" }, "", 0),
  ];
  return lines.find((line) => line.length <= columns) ?? lines.at(-1)!.slice(0, Math.max(0, columns));
}

/** 75 → "1 min 15 s" */
function duration(seconds: number): string {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

/** Bars of one command, of which one is shown at a time. */
export class Bars<Name extends string> {
  constructor(private readonly bars: Readonly<Record<Name, Progress>>) {}

  /** Draws one of them, in place of another. */
  at(name: Name, done: number, total?: number, note?: string): void {
    for (const [other, bar] of Object.entries<Progress>(this.bars)) if (other !== name && bar.shown) bar.end();
    this.bars[name].at(done, total, note);
  }

  /** Clears the line, for what is printed next and at the end. */
  end(): void {
    for (const bar of Object.values<Progress>(this.bars)) bar.end();
  }
}
