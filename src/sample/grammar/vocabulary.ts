/** Grammars compiled for the tokens of a model, each once as long as it is in use. */
import { ExitCode, UserError } from "../../errors";
import { MlxError, grammar as native } from "../../mlx";
import type { Tokenizer } from "../../text/tokenizer";

/** How many compiled grammars stay for the next request. */
const kept = 32;

/**
 * What markers of thoughts and calls are written with: bytes that no text has, so that none stands within a text, and a grammar may still
 * name them as tokens. A token without bytes is never accepted.
 */
const markerBytes = Uint8Array.of(0xff, 0xff);

const compilers = new WeakMap<Tokenizer, Map<number, GrammarCompiler>>();

/** A tokenizer that is gone takes the native vocabularies along. */
const forgotten = new FinalizationRegistry<GrammarCompiler>((compiler) => compiler.dispose());

/** @param vocabularySize how many logits the model gives, which may be more than there are tokens */
export function grammarCompiler(tokenizer: Tokenizer, vocabularySize: number): GrammarCompiler {
  const sizes = compilers.get(tokenizer) ?? new Map<number, GrammarCompiler>();
  compilers.set(tokenizer, sizes);
  const known = sizes.get(vocabularySize);
  if (known) return known;
  const made = new GrammarCompiler(tokenizer, vocabularySize);
  sizes.set(vocabularySize, made);
  forgotten.register(tokenizer, made);
  return made;
}

export class GrammarCompiler {
  readonly #vocabulary: native.Vocabulary;
  /** The one used last at the end. */
  readonly #compiled = new Map<string, Promise<native.Grammar>>();

  constructor(tokenizer: Tokenizer, vocabularySize: number) {
    const tokens = tokenizer.tokenBytes(vocabularySize);
    for (const id of tokenizer.markerTokens()) if (id < vocabularySize) tokens[id] = markerBytes;
    this.#vocabulary = new native.Vocabulary(tokens, tokenizer.eosTokenIds);
  }

  /**
   * A matcher at the grammar's start, which the caller disposes of.
   * @throws UserError for a grammar that cannot be read, or of which xgrammar leaves something out
   */
  async matcher(language: native.GrammarLanguage, text: string): Promise<native.Matcher> {
    const key = `${language}\n${text}`;
    const compiled = this.#compiled.get(key) ?? this.#compile(language, text);
    this.#compiled.delete(key);
    this.#compiled.set(key, compiled);
    compiled.catch(() => this.#compiled.delete(key));
    const matcher = compiled.then((grammar) => grammar.matcher());
    for (const [oldest, grammar] of this.#compiled) {
      if (this.#compiled.size <= kept) break;
      this.#compiled.delete(oldest);
      grammar.then((one) => one.dispose()).catch(() => {});
    }
    return matcher;
  }

  async #compile(language: native.GrammarLanguage, text: string): Promise<native.Grammar> {
    let grammar: native.Grammar;
    try {
      grammar = await this.#vocabulary.compile(language, text);
    } catch (cause) {
      if (!(cause instanceof MlxError)) throw cause;
      throw unreadable(cause.message, cause);
    }
    if (grammar.warnings.length === 0) return grammar;
    const [warning] = grammar.warnings;
    grammar.dispose();
    throw unreadable(warning!);
  }

  dispose(): void {
    for (const grammar of this.#compiled.values()) grammar.then((one) => one.dispose()).catch(() => {});
    this.#compiled.clear();
    this.#vocabulary.dispose();
  }
}

function unreadable(reason: string, cause?: Error): UserError {
  const [line] = reason.split("\n");
  return new UserError(`the grammar cannot be used: ${line!.slice(0, 500)}`, { code: ExitCode.usage, cause });
}
