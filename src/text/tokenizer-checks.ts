/**
 * What the native tokenizer library takes for granted. Where it does not hold, the library panics, and the process is
 * lost: nothing of that can be caught. Found in its source and by `test/fuzz/tokenizer.ts`.
 */
import { z } from "zod";
import { hasSoundTrie } from "./chars-map";
import { patternFacts } from "./pattern-cost";
import type { TokenizerFile } from "./tokenizer-file";
import { Component, modelType, type TokenizerJson } from "./tokenizer-json";

class Defect extends Error {}

function refuse(problem: string): never {
  throw new Defect(problem);
}

/** More than any tokenizer has, of the components of one kind. */
const mostComponents = 200;
/** Of a text's length after all replacements to its length before. */
const mostGrowth = 2 ** 16;

/** @returns what is wrong with the file, or null */
export function defect({ json, vocab, merges }: TokenizerFile): string | null {
  try {
    checkNormalizers(flatten(json.normalizer, "normalizers", "normalizer"));
    checkSplitters(flatten(json.pre_tokenizer, "pretokenizers", "pre_tokenizer"));
    checkProcessors(flatten(json.post_processor, "processors", "post_processor"));
    checkDecoders(flatten(json.decoder, "decoders", "decoder"));
    if (modelType(json) === "BPE") checkMerges(json.model, vocab ?? "", merges ?? "");
    return null;
  } catch (cause) {
    if (cause instanceof Defect) return cause.message;
    throw cause;
  }
}

/** A component, or the members of a Sequence of them, however deep. */
export function flatten(component: Component | null | undefined, members: string, place: string): Component[] {
  if (!component) return [];
  if (component.type === undefined) refuse(`${place} has a part without a type`);
  if (component.type !== "Sequence") return [component];
  const parsed = z.array(Component).safeParse(component[members]);
  if (!parsed.success) refuse(`${place} has a Sequence without ${members}`);
  const all = parsed.data.flatMap((member) => flatten(member, members, place));
  if (all.length > mostComponents) refuse(`${place} has more than ${mostComponents} parts`);
  return all;
}

function checkNormalizers(normalizers: Component[]): void {
  for (const normalizer of normalizers) {
    if (normalizer.type === "Precompiled" && !hasSoundTrie(normalizer.precompiled_charsmap)) {
      refuse("precompiled_charsmap is damaged");
    }
    if (normalizer.type === "Prepend" && normalizer.prepend === "") refuse("normalizer prepends nothing");
    // The library loses count of what it replaces where that is nothing.
    if (normalizer.type === "Replace" && leastMatch(normalizer, "normalizer") === 0) {
      refuse("normalizer replaces a pattern that matches nothing");
    }
  }
  if (growth(normalizers) > mostGrowth) refuse("normalizer makes texts too long");
}

function checkSplitters(splitters: Component[]): void {
  for (const splitter of splitters) {
    if (splitter.type === "FixedLength" && splitter.length === 0) refuse("pre_tokenizer cuts into pieces of length 0");
    if (splitter.type === "Split") leastMatch(splitter, "pre_tokenizer");
  }
}

function checkDecoders(decoders: Component[]): void {
  for (const decoder of decoders) {
    // The library looks for the ends of an empty text, and cuts both ends off the same characters.
    if (decoder.type === "Strip" && decoder.stop !== 0) refuse("decoder strips the ends of texts, which may be empty");
    if (decoder.type === "Replace") leastMatch(decoder, "decoder");
  }
  if (growth(decoders) > mostGrowth) refuse("decoder makes texts too long");
}

const Replacement = z.object({
  pattern: z.union([z.strictObject({ String: z.string() }), z.strictObject({ Regex: z.string() })]),
});

/** The fewest characters that the pattern of a Split or Replace matches; refuses one that may never end. */
function leastMatch(component: Component, place: string): number {
  const parsed = Replacement.safeParse(component);
  if (!parsed.success) refuse(`${place} has a ${component.type} without a pattern`);
  const { pattern } = parsed.data;
  if ("String" in pattern) return pattern.String.length;
  const facts = patternFacts(pattern.Regex);
  return "problem" in facts ? refuse(`${place}: ${facts.problem}`) : facts.least;
}

/** How many times as long replacements may make a text. */
export function growth(components: readonly Component[]): number {
  let factor = 1;
  for (const component of components) {
    if (component.type !== "Replace") continue;
    const { length } = String(component.content ?? "");
    const least = leastMatch(component, "");
    factor *= least === 0 ? length + 1 : Math.max(1, length / least);
  }
  return factor;
}

/** Processors that lay out an encoding; they give its parts, which another of them can't take. */
const layouts = new Set(["TemplateProcessing", "BertProcessing", "RobertaProcessing"]);

function checkProcessors(processors: Component[]): void {
  for (const processor of processors) if (processor.type === "TemplateProcessing") checkTemplate(processor);
  if (processors.filter(({ type }) => layouts.has(type ?? "")).length > 1) {
    refuse("post_processor lays a text out more than once");
  }
}

/** More than any template has. */
const mostPieces = 100;

const Sequence = z.looseObject({ id: z.string() });
const TemplatePiece = z.looseObject({
  SpecialToken: z.looseObject({ id: z.string() }).optional(),
  Sequence: Sequence.optional(),
});
const Template = z.looseObject({
  single: z.array(TemplatePiece).default([]),
  pair: z.array(TemplatePiece).default([]),
  special_tokens: z
    .record(z.string(), z.looseObject({ ids: z.array(z.int()), tokens: z.array(z.string()) }))
    .default({}),
});

function checkTemplate(processor: Component): void {
  const parsed = Template.safeParse(processor);
  if (!parsed.success) refuse("post_processor is not a template");
  const { single, pair, special_tokens: known } = parsed.data;
  if (single.length > mostPieces) refuse(`post_processor has a template of more than ${mostPieces} pieces`);
  if (single.some((piece) => piece.Sequence && piece.Sequence.id !== "A")) {
    refuse("post_processor asks for a second text where there is one");
  }
  for (const { SpecialToken: token } of [...single, ...pair]) {
    if (token && !Object.hasOwn(known, token.id)) refuse(`post_processor names an unknown token ${token.id}`);
  }
  for (const [name, { ids, tokens }] of Object.entries(known)) {
    if (ids.length !== tokens.length) refuse(`post_processor gives ${name} another number of ids than of tokens`);
    if (ids.length > mostPieces) refuse(`post_processor gives ${name} more than ${mostPieces} ids`);
  }
}

/**
 * The library joins a merge's halves, the second one without its continuing prefix, in a buffer as long as the longest
 * token, and slices blindly.
 */
function checkMerges(
  { continuing_subword_prefix: prefix }: TokenizerJson["model"],
  vocab: string,
  merges: string,
): void {
  const longest = longestToken(vocab);
  // Halves stand in lists of two, or in one text with a space between.
  const isPairs = /^\[\s*\[/.test(merges);
  for (let at = merges.indexOf('"'); at >= 0; at = merges.indexOf('"', at)) {
    const middle = endOfString(merges, at);
    const second = isPairs ? merges.indexOf('"', middle) : -1;
    const end = second < 0 ? middle : endOfString(merges, second);
    // A unit of a JavaScript text is at most three bytes: most merges need no closer look.
    if (prefix || (end - at) * 3 > longest) checkMerge(merges.slice(at, end), prefix ?? "", longest);
    at = end;
  }
}

function checkMerge(text: string, prefix: string, longest: number): void {
  let merge: unknown[];
  try {
    merge = JSON.parse(`[${text}]`);
  } catch {
    refuse("a merge is no JSON");
  }
  const [first = "", second = ""] = merge.length > 1 ? merge.map(String) : String(merge[0]).split(" ");
  const shown = JSON.stringify(merge.length > 1 ? merge : merge[0]).slice(0, 80);
  if (!second.startsWith(prefix)) refuse(`the merge ${shown} lacks the prefix ${prefix}`);
  if (Buffer.byteLength(first) + Buffer.byteLength(second) - Buffer.byteLength(prefix) > longest) {
    refuse(`the merge ${shown} is longer than any token`);
  }
}

/** Bytes of the longest key in the vocabulary's text; of one that the library will refuse, without end. */
function longestToken(vocab: string): number {
  let longest = 0;
  const id = /\s*:\s*[0-9]/y;
  for (let at = vocab.indexOf('"'); at >= 0; at = vocab.indexOf('"', at)) {
    const end = endOfString(vocab, at);
    id.lastIndex = end;
    if (!id.test(vocab)) return Infinity;
    if ((end - at) * 3 > longest) longest = Math.max(longest, bytesOf(vocab.slice(at, end)));
    at = end;
  }
  return longest;
}

function bytesOf(quoted: string): number {
  try {
    return Buffer.byteLength(JSON.parse(quoted));
  } catch {
    return refuse("a token is no JSON");
  }
}

/** Behind the text that begins with the quote at `start`. */
function endOfString(json: string, start: number): number {
  for (let end = start + 1; ; end++) {
    end = json.indexOf('"', end);
    if (end < 0) return json.length;
    let slashes = 0;
    while (json[end - 1 - slashes] === "\\") slashes++;
    if (slashes % 2 === 0) return end + 1;
  }
}
