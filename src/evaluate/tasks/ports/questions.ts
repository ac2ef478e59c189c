/** Tasks whose rows are laid out as a question with choices. */
import type { Row } from "../../../data/rows";
import { UserError } from "../../../errors";
import { strip } from "../../../text/python-text";
import { PythonRegex } from "../python-regex";
import { changed, integer, letters, text, texts } from "./columns";
import { literalOf } from "./literals";

const lettered = (choices: readonly string[]) => choices.map((choice, i) => `${letters[i]}. ${choice}\n`).join("");

/** @throws UserError for a letter that is no choice's */
function placeOf(letter: string, count: number): number {
  const place = (letters.slice(0, count) as string[]).indexOf(letter.toUpperCase());
  if (place >= 0 && letter.length === 1) return place;
  throw new UserError(`the answer is "${letter}", where a letter up to ${letters[count - 1]} is needed`, {
    hint: "Check the data.",
  });
}

export const mnli = {
  doc_to_text(row: Row) {
    const hypothesis = strip(text(row, "hypothesis"));
    const stop = hypothesis.endsWith(".") ? "" : ".";
    return `${text(row, "premise")}\nQuestion: ${hypothesis}${stop} True, False or Neither?\nAnswer:`;
  },
};

const spaceBeforeMark = new PythonRegex(" (['.,])", "wsc");

/** Undoes what word splitters do to contractions, brackets, quotes and punctuation. */
function detokenized(given: string): string {
  const joined = given.replaceAll(" n't", "n't").replaceAll(" )", ")").replaceAll("( ", "(");
  return spaceBeforeMark.sub("\\1", joined.replaceAll('" ', '"').replaceAll(' "', '"'));
}

export const wsc = {
  default_doc_to_text(row: Row) {
    const passage = text(row, "text");
    const pronoun = text(row, "span2_text");
    const before = strip(passage).split(/\s+/).slice(0, integer(row, "span2_index")).join(" ");
    const behind = [...passage].slice([...before].length + [...pronoun].length + 1).join("");
    return (
      `Passage: ${detokenized(`${before} *${pronoun}*${behind}`)}\n` +
      `Question: In the passage above, does the pronoun "*${pronoun}*" refer to "*${text(row, "span1_text")}*"?\nAnswer:`
    );
  },
};

interface Problem {
  question: string;
  answer: string;
  options: string[];
}

/** The questions to an article; the last is the one that is asked. */
function problemsOf(row: Row): Problem[] {
  const problems = literalOf(row, "problems");
  const isProblem = (one: unknown): one is Problem => {
    const { question, answer, options } = (one ?? {}) as Problem;
    return typeof question === "string" && typeof answer === "string" && Array.isArray(options) && options.length >= 4;
  };
  if (Array.isArray(problems) && problems.length > 0 && problems.every(isProblem)) return problems;
  throw new UserError('the column "problems" holds no list of questions with answers and four options', {
    hint: "Check the data.",
  });
}

export const race = {
  doc_to_text(row: Row) {
    const problems = problemsOf(row);
    const earlier = problems.slice(0, -1).map(({ question, answer, options }) => {
      const right = options[placeOf(answer, 4)]!;
      if (question.endsWith("  _  .")) return `${question.slice(0, -5)}${right}\n`;
      return `Question: ${question}\nAnswer: ${right}\n`;
    });
    return `Article: ${text(row, "article")}\n\n${earlier.join("")}${problems.at(-1)!.question}`;
  },
  doc_to_target: (row: Row) => placeOf(problemsOf(row).at(-1)!.answer, 4),
  doc_to_choice: (row: Row) => problemsOf(row).at(-1)!.options.slice(0, 4),
};

export const logiqa = {
  doc_to_text: (row: Row) =>
    `Passage: ${text(row, "context")}\nQuestion: ${text(row, "question")}\nChoices:\n` +
    `${lettered(texts(row, "options").slice(0, 4))}Answer:`,
  doc_to_target: (row: Row) => placeOf(strip(text(row, "label")), 4),
};

export const medmcqa = {
  doc_to_text: (row: Row) =>
    `Question: ${text(row, "question")}\nChoices:\n` +
    `${lettered(["opa", "opb", "opc", "opd"].map((name) => text(row, name)))}Answer:`,
};

export const medqa = {
  doc_to_text: (row: Row) =>
    `Question: ${text(row, "sent1")}\n${lettered([0, 1, 2, 3].map((i) => text(row, `ending${i}`)))}Answer:`,
  doc_to_target: (row: Row) => integer(row, "label"),
};

export const pubmedqa = {
  doc_to_text: (row: Row) =>
    `Abstract: ${texts(row, "CONTEXTS").join("\n")}\nQuestion: ${text(row, "QUESTION")}\nAnswer:`,
};

const mathChoice = new PythonRegex("[abcd] \\) .*?, |e \\) .*?$", "mathqa");

export const mathqa = {
  doc_to_choice: (row: Row) =>
    (mathChoice.findall(text(row, "options")) as string[]).map((one) => strip([...one].slice(4).join(""), " ,", "end")),
};

export const arithmetic = {
  process_docs: (rows: readonly Row[]) =>
    changed(rows, (row) => ({
      context: strip(text(row, "context"))
        .replaceAll("\n\n", "\n")
        .replaceAll("Q:", "Question:")
        .replaceAll("A:", "Answer:"),
      completion: row.completion,
    })),
};

export const musr = {
  doc_to_choice: (row: Row) => literalOf(row, "choices"),
  doc_to_text(row: Row) {
    const choices = literalOf(row, "choices");
    const list = (Array.isArray(choices) ? choices : []).map((choice, i) => `${i + 1} - ${choice}\n`).join("");
    return `${text(row, "narrative")}\n\n${text(row, "question")}\n\n${list}\nAnswer:`;
  },
};
