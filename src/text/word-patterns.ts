/** Regexes that cut a text into words ahead of the merges of a tokenizer on bytes, for several families. */

export const contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";

export const spaces = ["\\s*[\\r\\n]+", "\\s+(?!\\S)", "\\s+"];

/** English contractions, words, numbers of `digits`, symbols, line ends, spaces. */
export const cl100k = (digits: string) =>
  [contractions, "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+", digits, " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*", ...spaces].join("|");

const upper = "\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}";
const lower = "\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}";

/** Words that also end where lower case turns into upper. @param not what no letter may be @param ending behind a word */
export const casedWords = (ending: string, not = "") => [
  `[^\\r\\n\\p{L}\\p{N}]?[${upper}${not}]*[${lower}${not}]+${ending}`,
  `[^\\r\\n\\p{L}\\p{N}]?[${upper}${not}]+[${lower}${not}]*${ending}`,
];

/** Chinese characters are words by themselves. */
export const kimi = [
  "[\\p{Han}]+",
  ...casedWords(`${contractions}?`, "&&[^\\p{Han}]"),
  "\\p{N}{1,3}",
  " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*",
  ...spaces,
].join("|");
