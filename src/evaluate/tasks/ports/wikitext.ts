/** WikiText and C4: texts as they were before a word splitter; words are counted as it left them. */
import type { Row } from "../../../data/rows";
import { PythonRegex } from "../python-regex";
import { text } from "./columns";

const pattern = (source: string) => new PythonRegex(source, "a detokenizer");

/** In this order. A text takes the place of a text, a pattern's groups that of the pattern. */
const changes: readonly (readonly [from: string | PythonRegex, to: string])[] = [
  ["s '", "s'"],
  [pattern("/' [0-9]/"), "/'[0-9]/"],
  [" @-@ ", "-"],
  [" @,@ ", ","],
  [" @.@ ", "."],
  ...[":", ";", ".", "!", "?", ","].map((mark) => [` ${mark} `, `${mark} `] as const),
  [pattern("\\(\\s*([^\\)]*?)\\s*\\)"), "(\\1)"],
  [pattern("\\[\\s*([^\\]]*?)\\s*\\]"), "[\\1]"],
  [pattern("{\\s*([^}]*?)\\s*}"), "{\\1}"],
  [pattern('\\"\\s*([^\\"]*?)\\s*\\"'), '"\\1"'],
  [pattern("'\\s*([^']*?)\\s*'"), "'\\1'"],
  ["= = = =", "===="],
  ["= = =", "==="],
  ["= =", "=="],
  [" ° ", "°"],
  [" \n", "\n"],
  ["\n ", "\n"],
  [" N ", " 1 "],
  [" 's", "'s"],
];

function detokenized(given: string): string {
  return changes.reduce(
    (rest, [from, to]) => (typeof from === "string" ? rest.replaceAll(from, to) : from.sub(to, rest)),
    given,
  );
}

const spaces = pattern("\\s+");

function scoresOf(original: string, results: readonly unknown[]) {
  const [score] = results;
  const words = spaces.split(original).length;
  const bytes = Buffer.byteLength(original);
  return { word_perplexity: [score, words], byte_perplexity: [score, bytes], bits_per_byte: [score, bytes] };
}

export const wikitext = {
  wikitext_detokenizer: (row: Row) => detokenized(text(row, "page")),
  process_results: (row: Row, results: readonly unknown[]) => scoresOf(text(row, "page"), results),
};

export const c4 = {
  c4_detokenizer: (row: Row) => detokenized(text(row, "text")),
  process_results: (row: Row, results: readonly unknown[]) => scoresOf(text(row, "text"), results),
};
