/** MMLU-Pro: up to ten choices, answers that think aloud; and the leaderboard's form of it, which asks for a letter. */
import type { Row } from "../../../data/rows";
import { strip } from "../../../text/python-text";
import { letters, text, texts } from "./columns";

const subjects = [
  ...["biology", "business", "chemistry", "computer science", "economics", "engineering", "health", "history"],
  ...["law", "math", "other", "philosophy", "physics", "psychology"],
];

function question(row: Row): string {
  const options = texts(row, "options").slice(0, 10);
  const list = options.map((option, i) => `${letters[i]}. ${strip(option)}\n`).join("");
  return `Question:\n${text(row, "question")}\nOptions:\n${list}Answer: Let's think step by step.`;
}

export const mmluPro = {
  doc_to_text: question,
  fewshot_to_text: question,
  fewshot_to_target: (row: Row) => text(row, "cot_content").replaceAll("A: Let's think step by step. ", ""),
  ...Object.fromEntries(
    subjects.map((subject) => [
      `process_${subject.replaceAll(" ", "_")}`,
      (rows: readonly Row[]) => rows.filter(({ category }) => category === subject),
    ]),
  ),
};

export const leaderboardMmluPro = {
  doc_to_text(row: Row) {
    const options = texts(row, "options").map((option, i) => `${letters[i]}. ${option}\n`);
    return `${text(row, "question")}\n${options.join("")}Answer:`;
  },
  doc_to_choice: (row: Row) => letters.slice(0, texts(row, "options").length),
};
