/** Filters: from what the model said to what is scored. */

import type { Row } from "../../data/rows";
import { ExitCode, UserError } from "../../errors";
import { nearest } from "../../nearest";
import { strip } from "../../text/python-text";
import { PythonRegex } from "./python-regex";
import { PythonFunction } from "./task-yaml";

/** All responses to one request; some filters put one response, or a list of lists, in its place. */
type Responses = unknown;
type Filter = (responses: Responses, doc: Row) => Responses;
type Options = Record<string, unknown>;

/** A chain of filters under a name: results are kept apart by it. */
export interface FilterChain {
  name: string;
  apply: Filter;
}

const each =
  (change: (response: unknown, doc: Row) => unknown): Filter =>
  (responses, doc) =>
    (responses as unknown[]).map((response) => change(response, doc));

const textOf = (value: unknown) => (typeof value === "string" ? value : "");

/** The chosen match of findall; of several groups the first that is not empty. */
function chosenMatch(regex: PythonRegex, text: string, group: number): string | null {
  const match = regex.findall(text).at(group);
  if (match === undefined) return null;
  return typeof match === "string" ? match : (match.find((part) => part !== "") ?? null);
}

const defaultPattern = String.raw`#### (\-?[0-9\.\,]+)`;

function regexOptions(options: Options, owner: string) {
  const { regex_pattern: pattern = defaultPattern, group_select: group = 0, fallback = "[invalid]" } = options;
  return { regex: new PythonRegex(String(pattern), owner), group: Number(group), fallback };
}

const punctuation = /\p{P}/gu;

function multiChoice(options: Options, owner: string): Filter {
  const { regex, group, fallback } = regexOptions(options, owner);
  const ignored = [options.regexes_to_ignore ?? []].flat().map((pattern) => new PythonRegex(String(pattern), owner));
  const plain = (given: string) => {
    let text = ignored.reduce((rest, pattern) => pattern.sub("", rest), given);
    if (options.ignore_case) text = text.toLowerCase();
    return options.ignore_punctuation ? text.replace(punctuation, "") : text;
  };
  const pick = (pattern: PythonRegex, text: string, names: ReadonlyMap<string, string>) => {
    const match = strip(chosenMatch(pattern, text, group) ?? "");
    return names.get(match) ?? match;
  };
  return each((response, doc) => {
    const choices = doc.choices;
    if (!Array.isArray(choices)) {
      throw new UserError(`${owner}: multi_choice_regex needs a column "choices" with a list`, {
        hint: `The row has the columns ${Object.keys(doc).join(", ")}.`,
      });
    }
    const letters = choices.map((_, i) => String.fromCharCode(65 + i));
    const texts = choices.map((choice) => plain(strip(String(choice))));
    const text = textOf(response);
    const direct = pick(regex, text, new Map());
    if (direct) return direct;
    const escaped = texts.map(escapeRegex).sort((a, b) => [...b].length - [...a].length);
    const byText = new Map(texts.map((one, i) => [one, `(${letters[i]})`]));
    const named = pick(new PythonRegex(escaped.join("|"), owner), plain(text), byText);
    if (named) return named;
    const byLetter = new Map(letters.map((letter) => [letter, `(${letter})`]));
    return pick(new PythonRegex(`:[\\s]*(${letters.join("|")})`, owner), text, byLetter) || fallback;
  });
}

const escapeRegex = (text: string) => text.replace(/[\\^$.*+?()[\]{}|\-&~#\s]/g, "\\$&");

/** The most frequent one, the earliest of several. */
function majority(responses: readonly unknown[]): unknown {
  const counts = new Map<unknown, number>();
  for (const response of responses) counts.set(response, (counts.get(response) ?? 0) + 1);
  return [...counts].reduce((best, one) => (one[1] > best[1] ? one : best))[0];
}

/** Labels of entities, as models write them and as they are scored. */
const labels: Record<string, string> = {
  ...{ person: "PER", location: "LOC", organization: "ORG", counties: "LOC", places: "LOC", people: "PER" },
  ...{ persons: "PER", company: "ORG", country: "LOC", continent: "LOC", time: "DATE", date: "DATE" },
  ...{ per: "PER", loc: "LOC", org: "ORG" },
};

function formatSpans(response: string): string {
  let text = response.toLowerCase();
  for (const [label, code] of Object.entries(labels)) {
    text = new PythonRegex(`\\b${label}\\s*:`, "format_span").sub(`${code}:`, text);
  }
  text = strip(text.replaceAll("$$", "$").replace(/\$+$/, "").replaceAll("\n", "$"));
  const found = new PythonRegex(String.raw`\b(PER|LOC|ORG|DATE):\s*([^$]+)`, "format_span").findall(text) as string[][];
  return found
    .flatMap(([label, values]) => values!.split(",").map((value) => [label!.toLowerCase(), strip(value)] as const))
    .filter(([, value]) => value.toLowerCase() !== "none")
    .map(([label, value]) => `${label}: ${value}`)
    .join(" $ ");
}

const filters: Record<string, (options: Options, owner: string) => Filter> = {
  take_first: () => (responses) => (responses as unknown[])[0],
  take_first_k:
    ({ k }, owner) =>
    (responses) => {
      const list = responses as unknown[];
      if (list.length >= Number(k)) return list.slice(0, Number(k));
      throw new UserError(`${owner}: take_first_k needs ${k} responses, but there are ${list.length}`, {
        hint: "Raise `repeats` in the task's file.",
      });
    },
  majority_vote: () => (responses) => [majority(responses as unknown[])],
  regex: (options, owner) => {
    const { regex, group, fallback } = regexOptions(options, owner);
    return each((response) => {
      const match = chosenMatch(regex, textOf(response), group);
      return match === null ? fallback : strip(match);
    });
  },
  regex_pos: ({ fallback = ["invalid"] }, owner) => {
    const pair = new PythonRegex(String.raw`\('([^']*)', '([^']*)'\)`, owner);
    return each((response) => {
      const found = pair.findall(textOf(response)) as string[][];
      return found.length > 0 ? found.map(([, tag]) => tag) : fallback;
    });
  },
  multi_choice_regex: multiChoice,
  remove_whitespace: () => each((response) => strip(String(response))),
  lowercase: () => each((response) => String(response).toLowerCase()),
  uppercase: () => each((response) => String(response).toUpperCase()),
  map: ({ mapping_dict: names, default_value: otherwise = null }, owner) => {
    if (names === null || typeof names !== "object") {
      throw new UserError(`${owner}: mapping_dict must be a mapping`, { hint: "Repair the task's file." });
    }
    return each((response) => {
      const key = String(response);
      return Object.hasOwn(names, key) ? (names as Options)[key] : otherwise;
    });
  },
  format_span: () => each((response) => formatSpans(textOf(response))),
};

/** @throws UserError for a function that is no filter, or options that it cannot work with */
export function filterChain(
  name: string,
  functions: readonly ({ function: string | PythonFunction } & Options)[],
  owner: string,
): FilterChain {
  const chain = functions.map(({ function: kind, ...options }) => {
    if (kind instanceof PythonFunction || kind === "custom") {
      const reference = kind instanceof PythonFunction ? kind : options.filter_fn;
      throw new UserError(`${owner}: the filter "${name}" is ${reference}, which is Python`, {
        code: ExitCode.notFound,
        hint: "mlxlm runs no Python. Take another task.",
      });
    }
    if (Object.hasOwn(filters, kind)) return filters[kind]!(options, `${owner}, filter "${name}"`);
    const [similar] = nearest(kind, Object.keys(filters), 1);
    throw new UserError(`${owner}: filter_list, "${name}": there is no filter "${kind}"`, {
      hint: similar ? `Did you mean ${similar}?` : `There are ${Object.keys(filters).join(", ")}.`,
    });
  });
  return { name, apply: (responses, doc) => chain.reduce((rest, filter) => filter(rest, doc), responses) };
}
