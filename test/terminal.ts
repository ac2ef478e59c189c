/** A program at a pseudo-terminal: keys in, what the screen gets out. */

/** Longer than anything here takes on a busy machine. */
const patience = 30_000;

export interface TerminalOptions {
  env?: Record<string, string>;
  columns?: number;
}

export class TerminalProgram {
  readonly #child: Bun.Subprocess;
  #screen = "";
  /** How much of it has been looked at, escape codes not counted. */
  #seen = 0;
  #notify = () => {};

  constructor(command: string[], { env = {}, columns = 100 }: TerminalOptions = {}) {
    const decoder = new TextDecoder();
    this.#child = Bun.spawn(command, {
      env: { ...process.env, HF_HUB_OFFLINE: "1", ...env },
      terminal: {
        cols: columns,
        rows: 40,
        data: (_, bytes) => {
          this.#screen += decoder.decode(bytes, { stream: true });
          this.#notify();
        },
      },
    });
  }

  /** All that has been written, escape codes too. */
  get screen(): string {
    return this.#screen;
  }

  /** Types keys. */
  type(keys: string): void {
    this.#child.terminal!.write(keys);
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** The terminal goes away, as when its window is closed. */
  hangUp(): void {
    this.#child.terminal!.close();
  }

  /** Waits for a text after all that was waited for before, and returns what came up to its end, without escape codes. */
  async until(text: string): Promise<string> {
    const deadline = Date.now() + patience;
    for (;;) {
      const plain = Bun.stripANSI(this.#screen);
      const at = plain.indexOf(text, this.#seen);
      if (at >= 0) {
        const part = plain.slice(this.#seen, at + text.length);
        this.#seen = at + text.length;
        return part.replaceAll("\r", "");
      }
      const left = deadline - Date.now();
      if (left <= 0) throw new Error(`no ${JSON.stringify(text)} in ${JSON.stringify(plain.slice(this.#seen))}`);
      await Promise.race([new Promise<void>((resolve) => (this.#notify = resolve)), Bun.sleep(Math.min(left, 200))]);
    }
  }

  /** The exit code. */
  async ended(): Promise<number> {
    const code = await Promise.race([this.#child.exited, Bun.sleep(patience).then(() => null)]);
    if (code !== null) return code;
    this.#child.kill("SIGKILL");
    throw new Error(`it goes on: ${JSON.stringify(this.#screen.slice(-500))}`);
  }
}
