/**
 * Scores of translations beside references, over a whole corpus: BLEU with the tokenizer 13a of mteval and exponential
 * smoothing (Papineni et al. 2002; Chen & Cherry 2014), chrF and chrF++ (Popović 2015, 2017).
 */
import { UserError } from "../../errors";
import { PythonRegex } from "./python-regex";

const whitespace = new PythonRegex("\\s+", "a word split");
const words = (text: string) => whitespace.split(text).filter((word) => word !== "");

type Counts = Map<string, number>;

function ngrams(parts: readonly string[], order: number, separator: string): Counts {
  const counts: Counts = new Map();
  for (let i = 0; i + order <= parts.length; i++) {
    const gram = parts.slice(i, i + order).join(separator);
    counts.set(gram, (counts.get(gram) ?? 0) + 1);
  }
  return counts;
}

const total = (counts: Counts) => counts.values().reduce((sum, count) => sum + count, 0);

function matches(a: Counts, b: Counts): number {
  let sum = 0;
  for (const [gram, count] of a) sum += Math.min(count, b.get(gram) ?? 0);
  return sum;
}

/** What a pair adds to the sums that a corpus is scored by. */
type Statistics = (reference: string, translation: string) => number[];
type Score = (sums: Float64Array) => number;

/** @throws UserError where an item is no pair of texts */
function overCorpus(name: string, statistics: Statistics, score: Score) {
  return (items: readonly unknown[]) => {
    const rows = items.map((item) => {
      const [reference, translation] = Array.isArray(item) ? item : [];
      if (typeof reference === "string" && typeof translation === "string") return statistics(reference, translation);
      throw new UserError(`${name} takes texts, not ${JSON.stringify(item)?.slice(0, 60)}`, {
        hint: "Check doc_to_target, and the filters.",
      });
    });
    const size = rows[0]?.length ?? 0;
    return (chosen: Uint32Array) => {
      const sums = new Float64Array(size);
      for (const row of chosen) for (let i = 0; i < size; i++) sums[i]! += rows[row]![i]!;
      return score(sums);
    };
  };
}

const entities: readonly [entity: string, text: string][] = [
  ["&quot;", '"'],
  ["&amp;", "&"],
  ["&lt;", "<"],
  ["&gt;", ">"],
];

/** Words and marks; a point or comma within a number stays. */
function tokens13a(given: string): string[] {
  const line = given.replaceAll("<skipped>", "").replaceAll("-\n", "").replaceAll("\n", " ");
  const plain = entities.reduce((rest, [entity, text]) => rest.replaceAll(entity, text), line);
  const split = ` ${plain} `
    .replace(/([{-~[-` -&(-+:-@/])/g, " $1 ")
    .replace(/([^0-9])([.,])/gu, "$1 $2 ")
    .replace(/([.,])([^0-9])/gu, " $1 $2")
    .replace(/([0-9])(-)/g, "$1 $2 ");
  return words(split);
}

const orders = [1, 2, 3, 4];

function bleuStatistics(reference: string, translation: string): number[] {
  const [ref, hyp] = [tokens13a(reference.trimEnd()), tokens13a(translation.trimEnd())];
  const hits = orders.map((n) => matches(ngrams(hyp, n, " "), ngrams(ref, n, " ")));
  return [hyp.length, ref.length, ...hits, ...orders.map((n) => Math.max(0, hyp.length - n + 1))];
}

/** Of 100. */
function bleuScore(sums: Float64Array): number {
  const [length, referenceLength] = sums as unknown as [number, number];
  const [hits, totals] = [sums.subarray(2, 6), sums.subarray(6, 10)];
  if (hits.every((count) => count === 0) || totals.some((count) => count === 0)) return 0;
  let smoothing = 1;
  const logs = orders.map((_, i) => {
    if (hits[i]! > 0) return Math.log((100 * hits[i]!) / totals[i]!);
    smoothing *= 2;
    return Math.log(100 / (smoothing * totals[i]!));
  });
  const brevity = length < referenceLength ? Math.exp(1 - referenceLength / length) : 1;
  return brevity * Math.exp(logs.reduce((sum, log) => sum + log, 0) / orders.length);
}

/** string.punctuation */
const isMark = (character: string) => /^[!-/:-@[-`{-~]$/.test(character);

/** A mark at the end of a word stands alone, or else one at its beginning. */
function chrfWords(text: string): string[] {
  return words(text).flatMap((word) => {
    const characters = [...word];
    if (characters.length === 1) return word;
    if (isMark(characters.at(-1)!)) return [characters.slice(0, -1).join(""), characters.at(-1)!];
    return isMark(characters[0]!) ? [characters[0]!, characters.slice(1).join("")] : word;
  });
}

const characterOrders = [1, 2, 3, 4, 5, 6];

function chrfGrams(text: string, wordOrders: readonly number[]): Counts[] {
  const characters = [...words(text).join("")];
  const parts = chrfWords(text);
  return [...characterOrders.map((n) => ngrams(characters, n, "")), ...wordOrders.map((n) => ngrams(parts, n, " "))];
}

const chrfStatistics =
  (wordOrders: readonly number[]): Statistics =>
  (reference, translation) => {
    const refs = chrfGrams(reference, wordOrders);
    return chrfGrams(translation, wordOrders).flatMap((hyp, i) => {
      const ref = refs[i]!;
      return [ref.size > 0 ? total(hyp) : 0, total(ref), matches(hyp, ref)];
    });
  };

/** F2 of the mean precision and recall over the orders that both sides have; of 100. */
function chrfScore(sums: Float64Array): number {
  let [precision, recall, count] = [0, 0, 0];
  for (let i = 0; i < sums.length; i += 3) {
    const [translated, referred, hits] = [sums[i]!, sums[i + 1]!, sums[i + 2]!];
    if (translated === 0 || referred === 0) continue;
    precision += hits / translated;
    recall += hits / referred;
    count++;
  }
  if (precision + recall === 0) return 0;
  const [p, r] = [precision / count, recall / count];
  return (100 * 5 * p * r) / (4 * p + r);
}

export const bleu = overCorpus("bleu", bleuStatistics, bleuScore);
export const chrf = overCorpus("chrf", chrfStatistics([]), chrfScore);
export const chrfPlus = overCorpus("chrf++", chrfStatistics([1, 2]), chrfScore);
