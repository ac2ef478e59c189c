/** A progress bar of one line. */

export interface ProgressOptions {
  unit: "tok" | "bytes" | "it";
  total?: number;
}

/** Shorter work shows no bar. */
const quietFor = 1000;

/** Milliseconds between two pictures of the bar. */
const interval = 100;

const cells = 24;

export class Progress {
  private readonly began = performance.now();
  private drawn = 0;
  private width = 0;

  /** @param write null for a bar that is never shown */
  constructor(
    private readonly label: string,
    private readonly options: ProgressOptions,
    private readonly write: ((text: string) => void) | null,
  ) {}

  /** @param note what else there is to say, at the end of the line */
  at(done: number, total = this.options.total, note = ""): void {
    const now = performance.now();
    if (!this.write || now - this.began < quietFor || now - this.drawn < interval) return;
    this.drawn = now;
    const line = [this.line(done, total, (now - this.began) / 1000), note].filter(Boolean).join("  ");
    this.write(`\r${line.padEnd(this.width)}`);
    this.width = line.length;
  }

  /** Clears the line. */
  end(): void {
    if (this.width > 0) this.write?.(`\r${" ".repeat(this.width)}\r`);
    this.width = 0;
  }

  private line(done: number, total: number | undefined, seconds: number): string {
    const { unit } = this.options;
    const amount = (n: number) => (unit === "bytes" ? `${(n / 1e6).toFixed(1)} MB` : `${n} ${unit}`);
    const rate = `${amount(Math.round(done / seconds))}/s`;
    if (!total) return `${this.label}  ${amount(done)}  ${rate}`;
    const share = Math.min(1, done / total);
    const bar = "#".repeat(Math.round(share * cells)).padEnd(cells, ".");
    const left = done > 0 ? ((total - done) / done) * seconds : 0;
    return `${this.label}  [${bar}] ${(share * 100).toFixed(0)}%  ${amount(done)} of ${amount(total)}  ${rate}  ${left.toFixed(0)} s left`;
  }
}
