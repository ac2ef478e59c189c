/** Tasks whose choices go on where a sentence stops: HellaSwag, WinoGrande, COPA, and their translations. */
import type { Row } from "../../../data/rows";
import { UserError } from "../../../errors";
import { capitalize } from "../../../text/python-strings";
import { strip } from "../../../text/python-text";
import { PythonRegex } from "../python-regex";
import { changed, integer, text, texts } from "./columns";

const brackets = new PythonRegex("\\[.*?\\]", "hellaswag");

/** What is left of headings in texts of WikiHow goes. */
export function withoutBrackets(given: string): string {
  return brackets.sub("", strip(given).replaceAll(" [title]", ". ")).replaceAll("  ", " ");
}

export const hellaswag = {
  process_docs: (rows: readonly Row[]) =>
    changed(rows, (row) => ({
      query: withoutBrackets(`${text(row, "activity_label")}: ${text(row, "ctx_a")} ${capitalize(text(row, "ctx_b"))}`),
      choices: texts(row, "endings").map(withoutBrackets),
      gold: integer(row, "label"),
    })),
};

/** The sentence up to the gap, and what stands behind it. */
function atGap(row: Row): [before: string, behind: string] {
  const sentence = text(row, "sentence");
  const gap = sentence.indexOf("_");
  if (gap >= 0) return [sentence.slice(0, gap), strip(sentence.slice(gap + 1))];
  throw new UserError(`the sentence "${sentence.slice(0, 60)}" has no gap "_"`, { hint: "Check the data." });
}

export const winogrande = {
  doc_to_text(row: Row) {
    const place = ["1", "2"].indexOf(text(row, "answer"));
    if (place >= 0) return place;
    throw new UserError(`the answer is "${row.answer}", where 1 or 2 is needed`, { hint: "Check the data." });
  },
  doc_to_target: (row: Row) => atGap(row)[1],
  doc_to_choice: (row: Row) => [text(row, "option1"), text(row, "option2")].map((option) => atGap(row)[0] + option),
};

function lowerFirst(sentence: string): string {
  const [first = "", ...rest] = sentence;
  return first.toLowerCase() + rest.join("");
}

/** The premise without its full stop, and the word that leads on. */
function premise(row: Row, connectors: readonly [cause: string, effect: string]): string {
  const place = ["cause", "effect"].indexOf(text(row, "question"));
  if (place < 0) throw new UserError(`the question is "${row.question}", where cause or effect is needed`, {});
  return `${[...strip(text(row, "premise"))].slice(0, -1).join("")} ${connectors[place]}`;
}

export const copa = {
  doc_to_text: (row: Row) => premise(row, ["because", "therefore"]),
  doc_to_target: (row: Row) => ` ${lowerFirst(text(row, integer(row, "label") === 0 ? "choice1" : "choice2"))}`,
  doc_to_choice: (row: Row) => ["choice1", "choice2"].map((name) => ` ${lowerFirst(text(row, name))}`),
};

const connectors: Record<string, [cause: string, effect: string]> = {
  et: ["sest", "seetõttu"],
  ht: ["poukisa", "donk sa"],
  it: ["perché", "quindi"],
  id: ["karena", "maka"],
  qu: ["imataq", "chaymi"],
  sw: ["kwa sababu", "kwa hiyo"],
  zh: ["因为", "所以"],
  ta: ["காரணமாக", "எனவே"],
  th: ["เพราะ", "ดังนั้น"],
  tr: ["çünkü", "bu yüzden"],
  vi: ["bởi vì", "vì vậy"],
};

export const xcopa = {
  doc_to_choice: (row: Row) => ["choice1", "choice2"].map((name) => lowerFirst(text(row, name))),
  ...Object.fromEntries(
    Object.entries(connectors).map(([language, words]) => [
      `doc_to_text_${language}`,
      (row: Row) => premise(row, words),
    ]),
  ),
};
