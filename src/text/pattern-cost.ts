/**
 * What a pattern of tokenizer.json costs where it fails: how often the library may have to go back. It counts that, and
 * at ten million panics, which ends the process; so a pattern that can go back without end is refused when it is
 * loaded, and a text with a run of characters that is too long for the pattern before it is encoded.
 */
import { type CharacterSet, type Pattern, parsePattern } from "./pattern-parser";

/** Steps back from one place in the text; half of what the library allows. */
const allowed = 5_000_000;

/** Coefficients of a polynomial of the length of a run: `[a, b, c]` is a + b n + c n². */
type Cost = readonly number[];

const one: Cost = [1];
const highest = 6;

const sum = (a: Cost, b: Cost): Cost =>
  Array.from({ length: Math.max(a.length, b.length) }, (_, i) => (a[i] ?? 0) + (b[i] ?? 0));

function product(a: Cost, b: Cost): Cost {
  const result = new Array<number>(a.length + b.length - 1).fill(0);
  for (const [i, x] of a.entries()) for (const [j, y] of b.entries()) result[i + j]! += x * y;
  return checked(result);
}

function checked(cost: Cost): Cost {
  if (cost.length > highest || cost.some((coefficient) => coefficient > allowed)) throw new Endless();
  return cost;
}

class Endless extends Error {}

export interface PatternFacts {
  /** The fewest characters that it matches. */
  least: number;
  /** The longest run of one of `sets` that it can be given. */
  longestRun: number;
  /** Steps back from one place in a text whose longest run of one of `sets` is so long, at most. */
  stepsAt(run: number): number;
  /** What its loops go through, each as a regular expression's set; null: any character. */
  sets: ReadonlySet<CharacterSet>;
}

/**
 * @returns what the pattern can be given, or what is wrong with it
 */
export function patternFacts(source: string): PatternFacts | { problem: string } {
  const shown = JSON.stringify(source.length > 80 ? `${source.slice(0, 80)}…` : source);
  try {
    const pattern = parsePattern(source);
    const sets = new Set<CharacterSet>();
    loops(pattern, sets);
    const steps = cost(pattern, []);
    return { least: least(pattern), longestRun: longestRun(steps), stepsAt: (run) => valueAt(steps, run), sets };
  } catch (cause) {
    if (cause instanceof Endless) return { problem: `the pattern ${shown} ${withoutEnd}` };
    if (cause instanceof SyntaxError)
      return { problem: `the Oniguruma pattern ${shown} can't be used: ${cause.message}` };
    throw cause;
  }
}

/** Whether the steps back that a pattern takes may double with each character of a text. */
export function goesBackWithoutEnd(source: string): boolean {
  const facts = patternFacts(source);
  return "problem" in facts && facts.problem.endsWith(withoutEnd);
}

const withoutEnd = "can go back without end";

const valueAt = (cost: Cost, n: number) => cost.reduce((total, coefficient, i) => total + coefficient * n ** i, 0);

function longestRun(cost: Cost): number {
  const at = (n: number) => valueAt(cost, n);
  if (cost.length === 1 || at(2 ** 40) <= allowed) return Infinity;
  let [low, high] = [0, 2 ** 40];
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (at(middle) <= allowed) low = middle;
    else high = middle;
  }
  return low;
}

/** The fewest characters that a pattern takes. */
function least(pattern: Pattern): number {
  switch (pattern.kind) {
    case "set":
      return 1;
    case "look":
      return 0;
    case "group":
      return least(pattern.body);
    case "either":
      return Math.min(...pattern.options.map(least));
    case "sequence":
      return pattern.items.reduce((total, item) => total + least(item), 0);
    case "loop":
      return pattern.least * least(pattern.body);
  }
}

/** Whether a pattern matches at any place, if only nothing. */
function alwaysMatches(pattern: Pattern): boolean {
  switch (pattern.kind) {
    case "set":
    case "look":
      return false;
    case "group":
      return alwaysMatches(pattern.body);
    case "either":
      return pattern.options.some(alwaysMatches);
    case "sequence":
      return pattern.items.every(alwaysMatches);
    case "loop":
      return pattern.least === 0 || alwaysMatches(pattern.body);
  }
}

/** The sets that what is matched can begin with; null where that may be nothing, or is not known. */
function firsts(pattern: Pattern): CharacterSet[] | null {
  switch (pattern.kind) {
    case "set":
      return [pattern.set];
    case "look":
      return null;
    case "group":
      return firsts(pattern.body);
    case "either":
      return all(pattern.options.map(firsts));
    case "sequence":
      return firstOf(pattern.items);
    case "loop":
      return pattern.least === 0 ? null : firsts(pattern.body);
  }
}

/** Of patterns in a row: those that may be empty, and the first that may not. */
function firstOf(items: readonly Pattern[]): CharacterSet[] | null {
  const sets: CharacterSet[] = [];
  for (const item of items) {
    const skips = item.kind === "loop" && item.least === 0;
    const own = firsts(skips ? item.body : item);
    if (own === null) return null;
    sets.push(...own);
    if (!skips) return sets;
  }
  return null;
}

function all(lists: (CharacterSet[] | null)[]): CharacterSet[] | null {
  return lists.some((list) => list === null) ? null : lists.flatMap((list) => list!);
}

/** All characters that a pattern can take, as sets. */
function members(pattern: Pattern): CharacterSet[] {
  switch (pattern.kind) {
    case "set":
      return [pattern.set];
    case "look":
      return [];
    case "either":
      return pattern.options.flatMap(members);
    case "sequence":
      return pattern.items.flatMap(members);
    default:
      return members(pattern.body);
  }
}

/** Notes what each loop without an end goes through. */
function loops(pattern: Pattern, found: Set<CharacterSet>): void {
  if (pattern.kind === "look") {
    if (pattern.body) loops(pattern.body, found);
  } else if (pattern.kind === "either") for (const option of pattern.options) loops(option, found);
  else if (pattern.kind === "sequence") for (const item of pattern.items) loops(item, found);
  else if (pattern.kind === "group") loops(pattern.body, found);
  else if (pattern.kind === "loop") {
    loops(pattern.body, found);
    if (pattern.most === Infinity) {
      const sets = members(pattern.body);
      found.add(sets.includes(null) ? null : `[${sets.join("")}]`);
    }
  }
}

/** Steps back that a pattern takes where what follows it fails again and again. */
function cost(pattern: Pattern, follow: readonly Pattern[]): Cost {
  switch (pattern.kind) {
    case "set":
      return one;
    case "look":
      return pattern.body ? cost(pattern.body, []) : one;
    case "group":
      return cost(pattern.body, pattern.atomic ? [] : follow);
    case "either":
      return checked(pattern.options.map((option) => cost(option, follow)).reduce(sum));
    case "sequence":
      return pattern.items.reduceRight<Cost>((rest, item, i) => {
        const behind = [...pattern.items.slice(i + 1), ...follow];
        return inRow(item, behind, rest);
      }, one);
    case "loop":
      return loopCost(pattern, follow);
  }
}

/** Of an item and what stands behind it: added where one does not make the other start again, multiplied otherwise. */
function inRow(item: Pattern, behind: readonly Pattern[], rest: Cost): Cost {
  const goesBack = behind.some((pattern) => !alwaysMatches(pattern));
  const own = !goesBack && isPlainLoop(item) ? one : cost(item, behind);
  return !goesBack || isDelimited(item, behind) ? sum(own, rest) : product(own, rest);
}

/** A loop over one set: it never goes back by itself. */
function isPlainLoop(item: Pattern): boolean {
  return item.kind === "loop" && item.body.kind === "set";
}

/** What gives a character back fails at once, as that is none that what follows can begin with. */
function isDelimited(item: Pattern, behind: readonly Pattern[]): boolean {
  if (item.kind !== "loop") return false;
  const next = firstOf(behind);
  return next !== null && members(item.body).every((set) => next.every((other) => areDisjoint(set, other)));
}

function loopCost(
  { body, least: from, most, possessive }: Pattern & { kind: "loop" },
  follow: readonly Pattern[],
): Cost {
  const own = cost(body, most > 1 ? [body, ...follow] : follow);
  const isFixed = own.length === 1 && own[0] === 1;
  if (most === Infinity) {
    // A loop in a loop may share a run out between the two in any number of ways, unless something ends each turn.
    if (!isFixed && !isAtomic(body) && !endsTurns(body)) throw new Endless();
    if (least(body) === 0) throw new Endless();
    return possessive ? own : product(own, [0, 1]);
  }
  if (isFixed) return possessive ? one : [Math.max(1, most - from + 1)];
  let total: Cost = one;
  for (let turn = 0; turn < most; turn++) total = checked(sum(one, product(total, own)));
  return total;
}

/** What it has matched it does not give back. */
const isAtomic = (body: Pattern) => (body.kind === "group" && body.atomic) || (body.kind === "loop" && body.possessive);

/** Whether each turn of a loop can be cut in one way only, where the next turn may follow. */
function endsTurns(body: Pattern): boolean {
  const next = firsts(body);
  return next !== null && isDefinite(body, next);
}

/** Whether a pattern can match what stands at a place in one way only, if what follows it begins with one of `next`. */
function isDefinite(pattern: Pattern, next: CharacterSet[] | null): boolean {
  switch (pattern.kind) {
    case "set":
    case "look":
      return true;
    case "group":
      return pattern.atomic || isDefinite(pattern.body, next);
    case "either": {
      const begins = pattern.options.map(firsts);
      const areApart = begins.every((sets, i) => begins.slice(i + 1).every((others) => areApartFrom(sets, others)));
      return areApart && pattern.options.every((option) => isDefinite(option, next));
    }
    case "sequence":
      return pattern.items.every((item, i) => isDefinite(item, beginOf(pattern.items.slice(i + 1), next)));
    case "loop": {
      const own = firsts(pattern.body);
      if (pattern.least !== pattern.most && !pattern.possessive && !areApartFrom(own, next)) return false;
      return isDefinite(pattern.body, own && next && [...own, ...next]);
    }
  }
}

/** What patterns in a row, or what follows where they are empty, can begin with. */
function beginOf(items: readonly Pattern[], next: CharacterSet[] | null): CharacterSet[] | null {
  const sets: CharacterSet[] = [];
  for (const item of items) {
    const skips = item.kind === "loop" && item.least === 0;
    const own = firsts(skips ? item.body : item);
    if (own === null) return null;
    sets.push(...own);
    if (!skips) return sets;
  }
  return next && [...sets, ...next];
}

const areApartFrom = (sets: CharacterSet[] | null, others: CharacterSet[] | null) =>
  sets !== null && others !== null && sets.every((set) => others.every((other) => areDisjoint(set, other)));

let plane: string | undefined;

/** Every character of the basic plane, and some beyond. */
function characters(): string {
  plane ??= Array.from({ length: 0x12000 }, (_, code) =>
    code >= 0xd800 && code < 0xe000 ? "" : String.fromCodePoint(code),
  ).join("");
  return plane;
}

const known = new Map<string, boolean>();

function areDisjoint(a: CharacterSet, b: CharacterSet): boolean {
  if (a === null || b === null) return false;
  const both = `[[${a}]&&[${b}]]`;
  let disjoint = known.get(both);
  if (disjoint === undefined) {
    disjoint = !new RegExp(both, "v").test(characters());
    known.set(both, disjoint);
  }
  return disjoint;
}
