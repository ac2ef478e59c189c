/** A GGUF file's metadata, read with the types that are expected. */
import { basename } from "node:path";
import { UserError } from "../../errors";
import { warn } from "../../warnings";
import type { GgufValue } from "./header";

export class Metadata {
  constructor(
    private readonly values: ReadonlyMap<string, GgufValue>,
    private readonly path: string,
  ) {}

  wrong(problem: string): never {
    throw new UserError(`the metadata of ${basename(this.path)}: ${problem}`, {
      hint: "Take another GGUF file of the model, or its safetensors.",
    });
  }

  /** Tells the user of something that the file leaves open. */
  warn(problem: string): void {
    warn(`${basename(this.path)}: ${problem}`);
  }

  private read<T>(key: string, isRight: (value: GgufValue) => boolean, expected: string): T | undefined {
    const value = this.values.get(key);
    if (value === undefined) return undefined;
    if (!isRight(value)) this.wrong(`"${key}" must be ${expected}, and is ${shown(value)}`);
    return value as T;
  }

  text(key: string): string | undefined {
    return this.read(key, (value) => typeof value === "string", "a text");
  }

  number(key: string): number | undefined {
    return this.read(key, (value) => typeof value === "number", "a number");
  }

  /** @throws UserError where there is none */
  need(key: string): number {
    return this.number(key) ?? this.wrong(`"${key}" is missing`);
  }

  flag(key: string): boolean | undefined {
    return this.read(key, (value) => typeof value === "boolean", "true or false");
  }

  /** Numbers, or truths as 1 and 0; one that stands alone as a list of one. */
  list(key: string): number[] | undefined {
    const isNumeric = (value: GgufValue) => typeof value === "number" || typeof value === "boolean";
    const value = this.read<GgufValue>(
      key,
      (value) => isNumeric(value) || (Array.isArray(value) && value.every(isNumeric)),
      "a number or a list of numbers",
    );
    return value === undefined ? undefined : [value].flat().map(Number);
  }

  texts(key: string): string[] | undefined {
    return this.read(key, (value) => isListOf(value, "string"), "a list of texts");
  }

  numbers(key: string): number[] | undefined {
    return this.read(key, (value) => isListOf(value, "number"), "a list of numbers");
  }
}

const isListOf = (value: GgufValue, type: string) =>
  Array.isArray(value) && value.every((item) => typeof item === type);

/** A value for an error, cut where it is long. */
function shown(value: GgufValue): string {
  if (Array.isArray(value)) return "a list";
  return typeof value === "string" ? JSON.stringify(value.slice(0, 40)) : String(value);
}
