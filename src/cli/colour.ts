/** Colours on a terminal, where they are wanted. */
import { isatty } from "node:tty";
import { environment } from "../environment";

/** Whether text for this descriptor may have colours: https://no-color.org, and FORCE_COLOR to overrule it. */
export function hasColour(descriptor: number): boolean {
  const forced = environment("FORCE_COLOR");
  if (forced) return forced !== "0";
  return !environment("NO_COLOR") && environment("TERM") !== "dumb" && isatty(descriptor);
}

type Paint = (text: string) => string;

export interface Colours {
  dim: Paint;
  bold: Paint;
  accent: Paint;
  good: Paint;
  caution: Paint;
  bad: Paint;
}

const painted =
  (on: string, off: string): Paint =>
  (text) =>
    text === "" ? "" : `\x1b[${on}m${text}\x1b[${off}m`;

const plain: Paint = (text) => text;

export function coloursOf(descriptor: number): Colours {
  if (!hasColour(descriptor)) {
    return { dim: plain, bold: plain, accent: plain, good: plain, caution: plain, bad: plain };
  }
  return {
    dim: painted("2", "22"),
    bold: painted("1", "22"),
    accent: painted("1;35", "22;39"),
    good: painted("32", "39"),
    caution: painted("33", "39"),
    bad: painted("1;31", "22;39"),
  };
}
