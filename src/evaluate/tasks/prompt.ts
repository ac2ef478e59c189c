/** Prompts: description, examples and question as turns, and those as one text or as a chat. */

/** A turn. In plain text the delimiter follows it. */
export interface Turn {
  role: "system" | "user" | "assistant";
  content: string;
  delimiter: string;
}

const endsInSpace = (text: string) => /\s$/.test(text);
const beginsInSpace = (text: string) => /^\s/.test(text);

/** Both texts, with the delimiter where neither has a space at the seam. */
export function joinDelimited(prefix: string, suffix: string, delimiter: string): string {
  if (prefix === "" || suffix === "") return prefix + suffix;
  return endsInSpace(prefix) || beginsInSpace(suffix) ? prefix + suffix : prefix + delimiter + suffix;
}

export interface Question {
  question: string;
  /** With its answer it is an example. */
  answer?: string;
  /** How the answer is to begin. */
  genPrefix?: string;
  targetDelimiter: string;
  fewshotDelimiter: string;
}

/** A question, and its answer or the beginning of one. */
export function turnsOf({ question, answer, genPrefix, targetDelimiter, fewshotDelimiter }: Question): Turn[] {
  const hasAnswer = answer !== undefined && answer !== "";
  const seam = genPrefix ? question !== "" && !endsInSpace(question) && !beginsInSpace(genPrefix) : hasAnswer;
  const turns: Turn[] = [{ role: "user", content: question, delimiter: seam ? targetDelimiter : "" }];
  if (hasAnswer) {
    const content = joinDelimited(genPrefix ?? "", answer, " ");
    turns.push({ role: "assistant", content, delimiter: fewshotDelimiter });
  } else if (genPrefix) {
    turns.push({ role: "assistant", content: genPrefix, delimiter: "" });
  }
  return turns;
}

export const plainText = (turns: readonly Turn[]) =>
  turns.map(({ content, delimiter }) => content + delimiter).join("");

export interface ChatTurn {
  role: string;
  content: string;
  [field: string]: unknown;
}

/** A turn each; or all questions and examples as one turn, before an answer that has begun. */
export function chatOf(turns: readonly Turn[], asMultiturn: boolean): ChatTurn[] {
  const chat = ({ role, content }: Turn): ChatTurn => ({ role, content });
  if (asMultiturn) return turns.map(chat);
  const system = turns[0]?.role === "system" ? [turns[0]] : [];
  const rest = turns.slice(system.length);
  const begun = rest.at(-1)?.role === "assistant" ? [rest.at(-1)!] : [];
  const asked = rest.slice(0, rest.length - begun.length);
  const content = plainText(asked.with(-1, { ...asked.at(-1)!, delimiter: "" }));
  return [...system.map(chat), { role: "user", content }, ...begun.map(chat)];
}
