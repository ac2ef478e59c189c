/** Answers of a model in a file, a line each: an evaluation that was broken off goes on from there. */
import { createHash } from "node:crypto";
import { closeSync, mkdirSync, openSync, readFileSync, rmSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { ExitCode, UserError } from "../errors";
import type { Answer, Request } from "./tasks/request";

const digest = (text: string) => createHash("sha256").update(text).digest("base64url").slice(0, 32);

const isAnswer = (value: unknown): value is Answer =>
  typeof value === "string" ||
  typeof value === "number" ||
  (Array.isArray(value) && typeof value[0] === "number" && typeof value[1] === "boolean");

export class AnswerCache {
  readonly #known = new Map<string, Answer>();
  readonly #file: number;
  readonly #keys = new WeakMap<readonly Request[], string[]>();

  /**
   * @param conditions all that answers depend on beside the request: the model, its settings
   * @throws UserError where the file cannot be written
   */
  constructor(
    private readonly path: string,
    private readonly conditions: string,
  ) {
    try {
      mkdirSync(dirname(path), { recursive: true });
      this.#file = openSync(path, "a+");
      const text = readFileSync(path, "utf8");
      for (const line of text.split("\n")) this.#read(line);
      // A line that was cut off must not swallow the next one.
      if (text !== "" && !text.endsWith("\n")) writeSync(this.#file, "\n");
    } catch (cause) {
      throw new UserError(`the cache ${path} cannot be used: ${(cause as Error).message}`, {
        code: ExitCode.resources,
        hint: "Name another folder: --output-dir FOLDER",
        cause,
      });
    }
  }

  /** A line that is damaged, as by a crash, is answered anew. */
  #read(line: string): void {
    try {
      const [key, answer] = JSON.parse(line) as [unknown, unknown];
      const value = Array.isArray(answer) && answer[0] === null ? [Number.NEGATIVE_INFINITY, answer[1]] : answer;
      if (typeof key === "string" && isAnswer(value)) this.#known.set(key, value);
    } catch {}
  }

  /** Requests that are alike have answers of their own: they may be drawn at random. */
  #keysOf(requests: readonly Request[]): string[] {
    const known = this.#keys.get(requests);
    if (known) return known;
    const counts = new Map<string, number>();
    const keys = requests.map((request) => {
      const text = JSON.stringify(request);
      const count = counts.get(text) ?? 0;
      counts.set(text, count + 1);
      return digest(JSON.stringify([this.conditions, text, count]));
    });
    this.#keys.set(requests, keys);
    return keys;
  }

  get(requests: readonly Request[], index: number): Answer | undefined {
    return this.#known.get(this.#keysOf(requests)[index]!);
  }

  put(requests: readonly Request[], index: number, answer: Answer): void {
    writeSync(this.#file, `${JSON.stringify([this.#keysOf(requests)[index], answer])}\n`);
  }

  close(): void {
    closeSync(this.#file);
  }

  /** Takes the file away, when nothing is left to do. */
  remove(): void {
    rmSync(this.path, { force: true });
  }
}
