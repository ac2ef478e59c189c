/** Grammars, by xgrammar: what may follow in a text, as a mask over the tokens of a vocabulary. */
import { availableParallelism } from "node:os";
import { MlxError } from "./error";
import * as abi from "./generated/ops";
import { native } from "./library";
import { beginMail, numberMail, readInts, writeInts } from "./mailbox";
import { checked, type Handle, readFields } from "./native";
import { wrap } from "./operand";
import type { Tensor } from "./tensor";

/** In which language a grammar is written. Structural tags are xgrammar's way to put others together. */
export type GrammarLanguage = "json_schema" | "ebnf" | "regex" | "structural_tag";

const languages: readonly GrammarLanguage[] = ["json_schema", "ebnf", "regex", "structural_tag"];

/** The longest grammar in bytes: how deep its parser goes, and the stack that it has for that, follow from it. */
export const maxGrammarBytes = 1 << 20;

/** How many vocabularies, grammars and matchers live. */
export function liveGrammars(): number {
  return native.mlxlm_live_grammars();
}

/** Something native that is freed once. */
class Held {
  #handle: Handle;

  constructor(handle: Handle) {
    this.#handle = handle;
  }

  /** @throws MlxError after `dispose` */
  get handle(): Handle {
    if (this.#handle === 0) throw new MlxError("grammar used after it was freed");
    return this.#handle;
  }

  dispose(): void {
    if (this.#handle !== 0) checked(native.mlxlm_grammar_free(this.#handle));
    this.#handle = 0;
  }
}

/** The tokens of a model, as bytes. */
export class Vocabulary extends Held {
  readonly size: number;

  /**
   * @param tokens the bytes of each token by its id; an empty one is never part of a text
   * @param stops ids of tokens that end a text
   */
  constructor(tokens: readonly Uint8Array[], stops: Iterable<number>) {
    const ends = new Int32Array(new ArrayBuffer(Math.max(tokens.length, 1) * 4));
    let length = 0;
    for (const [id, token] of tokens.entries()) ends[id] = length += token.length;
    const bytes = new Uint8Array(new ArrayBuffer(Math.max(length, 1)));
    for (const [id, token] of tokens.entries()) bytes.set(token, ends[id]! - token.length);
    beginMail();
    const count = writeInts([...stops]);
    super(
      checked(
        native.mlxlm_grammar_vocabulary(bytes, length, ends, tokens.length, count, Math.min(availableParallelism(), 8)),
      ),
    );
    this.size = tokens.length;
  }

  /**
   * Compiles a grammar for these tokens, beside the caller's work.
   * @throws MlxError with xgrammar's words for a grammar that it cannot read, and after `timeout` milliseconds
   */
  async compile(language: GrammarLanguage, text: string, { timeout = 30_000 } = {}): Promise<Grammar> {
    const bytes = Buffer.from(`${text}\0`);
    const length = bytes.length - 1;
    if (length > maxGrammarBytes) throw new MlxError(`a grammar of ${length} bytes is too long (${maxGrammarBytes})`);
    const code = languages.indexOf(language);
    const grammar = new Grammar(checked(native.mlxlm_grammar_compile(this.handle, code, bytes, length)), this.size);
    try {
      const end = performance.now() + timeout;
      for (let wait = 0; !grammar.isCompiled(); wait = 1) {
        if (performance.now() > end) throw new MlxError(`compiling the grammar takes more than ${timeout / 1000} s`);
        await new Promise((resolve) => setTimeout(resolve, wait));
      }
      return grammar;
    } catch (error) {
      grammar.dispose();
      throw error;
    }
  }
}

/** A grammar that is compiled for a vocabulary. */
export class Grammar extends Held {
  /** What xgrammar leaves out of what the grammar asks for, in its words. */
  warnings: readonly string[] = [];

  constructor(
    handle: Handle,
    readonly vocabularySize: number,
  ) {
    super(handle);
  }

  /** @throws MlxError where it could not be compiled */
  isCompiled(): boolean {
    if (checked(native.mlxlm_grammar_compiled(this.handle)) === 0) return false;
    this.warnings = readFields(numberMail[0]!);
    return true;
  }

  /** A new walk from the grammar's start. It may outlive the grammar's handle. */
  matcher(): Matcher {
    return new Matcher(checked(native.mlxlm_grammar_matcher(this.handle)), this.vocabularySize);
  }
}

/** Where a text stands: it has to go on, it may end, or a stop token has ended it. */
export type MatcherState = "open" | "complete" | "ended";

const states: readonly MatcherState[] = ["open", "complete", "ended"];

/** A walk through a grammar, token by token. */
export class Matcher extends Held {
  constructor(
    handle: Handle,
    readonly vocabularySize: number,
  ) {
    super(handle);
  }

  /** Goes a token on. False where the grammar does not allow it; nothing has changed then. */
  accept(token: number): boolean {
    // A model may have more logits than its tokenizer has tokens.
    if (token >= this.vocabularySize) return false;
    return checked(native.mlxlm_grammar_accept(this.handle, token)) === 1;
  }

  /** Takes the last `count` accepted tokens back. */
  rollback(count: number): void {
    if (count > 0) checked(native.mlxlm_grammar_rollback(this.handle, count));
  }

  get state(): MatcherState {
    return states[checked(native.mlxlm_grammar_state(this.handle))]!;
  }

  /**
   * Tokens that write the only text that may follow here: the longest of the vocabulary, without the last where a longer
   * one might take its place. Empty where there is a choice.
   */
  forced(): number[] {
    return readInts(checked(native.mlxlm_grammar_forced(this.handle)));
  }

  /** The only text that may follow here. */
  forcedText(): string {
    return readFields(checked(native.mlxlm_grammar_forced_text(this.handle)))[0] ?? "";
  }
}

/** What a mask says about a row: the one token that may follow, that there are several, or none. */
export type Choices = number | "several" | "none";

export interface Mask {
  /** (B, ⌈V / 32⌉) uint32, a bit a token. */
  bits: Tensor;
  choices: Choices[];
}

/** A row of a mask: what a matcher allows, or all where it is null. */
export interface MaskRow {
  matcher: Matcher | null;
  /** Tokens that may follow beside those. */
  extras?: readonly number[];
  /** Tokens that may not follow. */
  without?: readonly number[];
}

/** Which of `vocabularySize` tokens may follow in each row. */
export function maskOf(rows: readonly MaskRow[], vocabularySize: number): Mask {
  beginMail();
  const count = writeInts(rows.map(({ matcher }) => matcher?.handle ?? 0));
  const pairs = (list: "extras" | "without") =>
    writeInts(rows.flatMap((row, i) => (row[list] ?? []).flatMap((token) => [i, token])));
  const [extras, without] = [pairs("extras"), pairs("without")];
  const bits = wrap(checked(native.mlxlm_grammar_mask(count, extras, without, vocabularySize)));
  const choices = readInts(rows.length).map((value): Choices => {
    return value === -1 ? "several" : value === -2 ? "none" : value;
  });
  return { bits, choices };
}

/** Logits (B, V) with −∞ for the tokens that a mask (`bits`) leaves out, in one pass. */
export function maskLogits(logits: Tensor, bits: Tensor): Tensor {
  return wrap(abi.mask_logits(logits.handle, bits.handle));
}
