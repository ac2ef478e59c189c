/** How long a text, and a run of characters of one kind in it, a tokenizer can take. */
import { type PatternFacts, patternFacts } from "./pattern-cost";
import { flatten, growth } from "./tokenizer-checks";
import type { Component, TokenizerJson } from "./tokenizer-json";

/** GPT-2's, which ByteLevel has built in. */
const byteLevelPattern = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`;

/** Characters, after all replacements. */
const mostCharacters = 2 ** 28;

/** Normalizers that leave a run as it is, or nearly. */
const mild = new Set(["NFC", "NFD", "Lowercase", "StripAccents"]);
/** They take a character apart into at most eighteen. */
const widening = 18;

export class TextLimits {
  readonly #growth: number;
  readonly #patterns: PatternFacts[] = [];
  /** Characters that the decoder's patterns can be given. */
  readonly #longestDecoded: number;
  readonly #decoderGrowth: number;

  constructor(json: TokenizerJson) {
    const normalizers = flatten(json.normalizer, "normalizers", "normalizer");
    const splitters = flatten(json.pre_tokenizer, "pretokenizers", "pre_tokenizer");
    const decoders = flatten(json.decoder, "decoders", "decoder");
    this.#growth = growth(normalizers);
    this.#decoderGrowth = growth(decoders);
    let asWritten = true;
    for (const component of [...normalizers, ...splitters]) {
      if (component.type === "ByteLevel" && component.use_regex === false) asWritten = false;
      const facts = factsOf(component);
      // Where the text is another one by then, any of its characters may be of the kind.
      if (facts) this.#patterns.push(asWritten ? facts : { ...facts, sets: new Set([null]) });
      if (normalizers.includes(component) && !mild.has(component.type ?? "")) asWritten = false;
      if (component.type === "ByteLevel") asWritten = false;
    }
    if (normalizers.some(({ type }) => /^NFKC|^NFKD|^Precompiled/.test(type ?? ""))) this.#growth *= widening;
    this.#longestDecoded = Math.min(Infinity, ...decoders.map((decoder) => factsOf(decoder)?.longestRun ?? Infinity));
  }

  /** @returns why the text can't be encoded, or null */
  problemOf(text: string): string | null {
    const length = text.length * this.#growth;
    if (length > mostCharacters) return `the text has ${text.length} characters, more than this tokenizer can take`;
    for (const { longestRun, sets } of this.#patterns) {
      if (length <= longestRun) continue;
      if ([...sets].some((set) => set === null || hasRun(text, set, longestRun))) {
        return `the text has a run of more than ${longestRun} characters of one kind, more than this tokenizer can take`;
      }
    }
    return null;
  }

  /** @returns why the tokens can't be decoded, or null */
  problemOfTokens(tokens: readonly string[]): string | null {
    let length = 0;
    for (const token of tokens) length += token.length;
    const isTooLong = length > this.#longestDecoded || length * this.#decoderGrowth > mostCharacters;
    return isTooLong ? "the text is longer than this tokenizer's decoder can take" : null;
  }
}

function factsOf(component: Component): PatternFacts | null {
  const isSplit = component.type === "Split" || component.type === "Replace";
  const { Regex } = (isSplit ? component.pattern : {}) as { Regex?: string };
  const builtIn = component.type === "ByteLevel" && component.use_regex !== false ? byteLevelPattern : undefined;
  const pattern = Regex ?? builtIn;
  if (pattern === undefined) return null;
  const facts = patternFacts(pattern);
  return "problem" in facts ? null : facts;
}

function hasRun(text: string, set: string, longest: number): boolean {
  const member = new RegExp(`[${set}]+`, "vg");
  for (const [run] of text.matchAll(member)) if (run.length > longest) return true;
  return false;
}
