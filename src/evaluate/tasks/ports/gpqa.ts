/** GPQA: the choices are shuffled, in an order that the seed decides. */
import type { Row } from "../../../data/rows";
import { PythonRandom } from "../../../mersenne";
import { strip } from "../../../text/python-text";
import { changed, text } from "./columns";
import { withoutBrackets } from "./continuations";
import type { PortContext } from "./port";

type Cleaner = (given: string) => string;

const plain: Cleaner = (given) => strip(given).replaceAll(" [title]", ". ").replaceAll("  ", " ");

const columns = ["Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3", "Correct Answer"];

function shuffled(rows: readonly Row[], random: PythonRandom, clean: Cleaner, asList: boolean): Row[] {
  return changed(rows, (row) => {
    const choices = columns.map((name) => (row[name] === null ? " " : clean(text(row, name))));
    const right = choices[3]!;
    random.shuffle(choices);
    const named = Object.fromEntries(choices.map((choice, i) => [`choice${i + 1}`, choice]));
    const answer = `(${"ABCD"[choices.indexOf(right)]})`;
    return { ...named, ...(asList && { choices }), answer };
  });
}

const byRandom = (clean: Cleaner, asList: boolean) => ({
  process_docs: (rows: readonly Row[], { random }: PortContext) => shuffled(rows, random, clean, asList),
});

export const gpqaZeroshot = byRandom(plain, false);
export const gpqaGenerative = byRandom(plain, true);
export const leaderboardGpqa = byRandom(withoutBrackets, false);

export const gpqaNShot = {
  process_docs: (rows: readonly Row[]) => shuffled(rows, new PythonRandom(42), plain, false),
};
