/** Parts of splits in the words of Python's `datasets`: "train[:80%]", "train[-100:]", "train[:10]+test". */
import { ExitCode, UserError } from "../errors";
import { splitNamed } from "./dataset";
import { JoinedRows, PickedRows, type Rows } from "./rows";
import type { Splits } from "./splits";

const part =
  /^(?<split>\w+(?:\.\w+)*)(?:\[(?:(?<from>-?\d+(?:_\d+)*)(?<fromPercent>%)?)?:(?:(?<to>-?\d+(?:_\d+)*)(?<toPercent>%)?)?\])?(?:\((?<rounding>[^)]*)\))?$/;

/** @throws UserError where the words cannot be understood, or name a split that there is not */
export function slicedSplit(splits: Splits, words: string, dataset: string): Rows {
  const parts = words.trim().split(/\s*\+\s*/);
  const rows = parts.map((one) => slice(splits, one, dataset));
  return rows.length === 1 ? rows[0]! : new JoinedRows(rows);
}

function slice(splits: Splits, words: string, dataset: string): Rows {
  const wrong = (problem: string) =>
    new UserError(`"${words}" ${problem}`, {
      code: ExitCode.usage,
      hint: 'For example "train", "train[:1000]", "train[-10%:]" or "train[:90%]+test"',
    });
  const { split, from, to, fromPercent, toPercent, rounding } = part.exec(words)?.groups ?? {};
  if (split === undefined) throw wrong("is no part of a split");
  const rows = splitNamed(splits, split, dataset);
  const { length } = rows;
  const inPercent = fromPercent !== undefined || toPercent !== undefined;
  if (rounding !== undefined && !(inPercent && ["closest", "pct1_dropremainder"].includes(rounding))) {
    throw wrong("is rounded in a way that there is not: closest and pct1_dropremainder are for percentages");
  }
  if (from === undefined && to === undefined) return rows;
  const whole = rounding === "pct1_dropremainder";
  if (whole && length < 100) throw wrong(`takes whole hundredths of ${length} rows`);
  const place = (digits: string | undefined, otherwise: number): number => {
    if (digits === undefined) return otherwise;
    const given = Number(digits.replaceAll("_", ""));
    if (!Number.isSafeInteger(given)) throw wrong("has a boundary that is no number");
    if (inPercent && Math.abs(given) > 100) throw wrong("goes beyond 100 %");
    const at = !inPercent ? given : whole ? given * Math.trunc(length / 100) : roundedToEven((given * length) / 100);
    return Math.min(at < 0 ? Math.max(length + at, 0) : at, length);
  };
  const start = place(from, 0);
  return new PickedRows(rows, start, Math.max(0, place(to, length) - start));
}

/** Python's `round`: halves go to the even neighbour. */
function roundedToEven(value: number): number {
  const below = Math.floor(value);
  const rest = value - below;
  if (rest !== 0.5) return Math.round(value);
  return below % 2 === 0 ? below : below + 1;
}
