/** Jinja's filters, with the work that each does counted before it is done. */
import { float as readFloat, integer as readInteger } from "./python-numbers";
import { capitalize, join, replace, type Spend } from "./python-strings";
import { strip } from "./python-text";
import { type JsonLayout, toJson } from "./template-json";
import { testNamed } from "./template-tests";
import {
  compare,
  describe,
  entriesOf,
  escapeText,
  extent,
  float,
  isArray,
  isFloat,
  isInteger,
  isNamespace,
  isNull,
  isNumeric,
  isObject,
  isString,
  isTuple,
  isUndefined,
  itemsOf,
  list,
  repr,
  safeText,
  size,
  str,
  toValue,
  UNDEFINED,
  type Value,
} from "./template-values";
import { characterAt, characterCount } from "./text-search";

/** The arguments of a filter, by place or by name. */
export class FilterArguments {
  constructor(
    readonly positional: readonly Value[] = [],
    readonly named: ReadonlyMap<string, Value> = new Map(),
  ) {}

  get(index: number, name: string): Value | undefined {
    return this.positional[index] ?? this.named.get(name);
  }

  isTrue(index: number, name: string): boolean {
    return this.get(index, name)?.__bool__().value ?? false;
  }

  /** @throws Error where the argument is there but no integer. */
  count(index: number, name: string, otherwise: number): number {
    const value = this.get(index, name);
    if (value === undefined || isNull(value)) return otherwise;
    if (!isInteger(value)) throw new Error(`${name} must be an integer, not ${describe(value)}`);
    return value.value;
  }

  text(index: number, name: string, otherwise: string): string {
    const value = this.get(index, name);
    return value === undefined ? otherwise : str(value);
  }

  /** The arguments behind the first. */
  rest(): FilterArguments {
    return new FilterArguments(this.positional.slice(1), this.named);
  }
}

type Filter = (operand: Value, args: FilterArguments, spend: Spend) => Value;

/** Applies a filter. @throws Error for a name that is no filter's, or an operand that it can't take. */
export function applyFilter(name: string, operand: Value, args: FilterArguments, spend: Spend): Value {
  if (!Object.hasOwn(FILTERS, name)) throw new Error(`there is no filter "${name}"`);
  if (!CHEAP.has(name)) spend(4 * extent(operand));
  if (isString(operand) && OF_ITEMS.has(name)) spend(operand.value.length);
  for (const argument of [...args.positional, ...args.named.values()]) spend(size(argument));
  return FILTERS[name]!(operand, args, spend);
}

/** Filters that do not look at every item. */
const CHEAP = new Set(["first", "last", "default", "d"]);
/** Filters that make an item of each character of a text. */
const OF_ITEMS = new Set([
  ...["batch", "join", "list", "map", "max", "min", "reject", "rejectattr", "reverse"],
  ...["select", "selectattr", "sort", "sum", "unique"],
]);

/** A filter of texts: whatever it is given is printed first. */
const ofText =
  (change: (text: string, args: FilterArguments, spend: Spend) => string): Filter =>
  (operand, args, spend) => {
    if (!isString(operand)) spend(size(operand));
    return toValue(change(str(operand), args, spend));
  };

const length: Filter = (operand) => {
  if (isString(operand)) return toValue(characterCount(operand.value));
  return toValue(isObject(operand) ? operand.value.size : itemsOf(operand).length);
};

const fallback: Filter = (operand, args) => {
  const replaces = isUndefined(operand) || (args.isTrue(1, "boolean") && !operand.__bool__().value);
  return replaces ? (args.get(0, "default_value") ?? toValue("")) : operand;
};

const escapeFilter: Filter = (operand, _, spend) => {
  spend(size(operand));
  return safeText(escapeText(operand));
};

const FILTERS: Record<string, Filter> = {
  abs: (operand) => {
    const value = Math.abs(number(operand, "abs"));
    return isFloat(operand) ? float(value) : toValue(value);
  },
  batch: (operand, args, spend) => {
    const width = Math.max(1, args.count(0, "linecount", 1));
    const filler = args.get(1, "fill_with");
    const items = itemsOf(operand);
    if (filler) spend(width);
    const rows = Array.from({ length: Math.ceil(items.length / width) }, (_, i) => {
      const row = items.slice(i * width, (i + 1) * width);
      return filler ? [...row, ...Array<Value>(width - row.length).fill(filler)] : row;
    });
    return list(rows.map(list));
  },
  capitalize: ofText(capitalize),
  center: ofText((text, args, spend) => {
    const missing = Math.max(0, args.count(0, "width", 80) - text.length);
    spend(missing / 16);
    const left = Math.floor(missing / 2) + (missing & (args.count(0, "width", 80) & 1));
    return " ".repeat(left) + text + " ".repeat(missing - left);
  }),
  count: length,
  d: fallback,
  default: fallback,
  dictsort: (operand, args, spend) => {
    if (!isObject(operand)) throw new Error(`the filter dictsort takes a mapping, not ${describe(operand)}`);
    const place = args.text(1, "by", "key") === "value" ? 1 : 0;
    const pairs = itemsOf(entriesOf(operand.value));
    return list(sorted(pairs, args, { case: 0, reverse: 2 }, spend, (pair) => itemsOf(pair)[place]!));
  },
  e: escapeFilter,
  escape: escapeFilter,
  first: (operand) => (isString(operand) ? character(operand.value, 0) : itemsOf(operand)[0]) ?? UNDEFINED,
  float: (operand, args) => {
    const value = isNumeric(operand) ? Number(operand.value) : isString(operand) ? readFloat(operand.value) : undefined;
    return value === undefined ? (args.get(0, "default") ?? float(0)) : float(value);
  },
  forceescape: (operand, _, spend) => {
    spend(size(operand));
    return safeText(escapeText(toValue(str(operand))));
  },
  indent: (operand, args, spend) => {
    const width = args.get(0, "width");
    const indent = width && isString(width) ? width.value : spaces(args.count(0, "width", 4), spend);
    const [first, blank] = [args.isTrue(1, "first"), args.isTrue(2, "blank")];
    spend(size(operand));
    const lines = str(operand).split("\n");
    spend((lines.length * indent.length) / 16);
    const indented = lines.map((line, i) => ((i === 0 ? first : blank || line !== "") ? indent + line : line));
    return toValue(indented.join("\n"));
  },
  int: (operand, args) => toValue(integer(operand, args.count(1, "base", 10)) ?? args.get(0, "default")?.value ?? 0),
  items: (operand) => {
    if (isUndefined(operand)) return list([]);
    if (!isObject(operand)) throw new Error(`the filter items takes a mapping, not ${describe(operand)}`);
    return entriesOf(operand.value);
  },
  join: (operand, args, spend) => {
    const by = attributeBy(args.get(1, "attribute"), spend);
    const items = itemsOf(operand).map(by);
    return toValue(join(items, args.text(0, "d", ""), spend));
  },
  last: (operand) => (isString(operand) ? character(operand.value, -1) : itemsOf(operand).at(-1)) ?? UNDEFINED,
  length,
  list: (operand, _, spend) => {
    spend(isString(operand) ? operand.value.length : 0);
    return isArray(operand) && !isTuple(operand) ? operand : list(itemsOf(operand));
  },
  lower: ofText((text) => text.toLowerCase()),
  map: (operand, args, spend) => {
    const [name] = args.positional;
    if (name) return list(inFilter(operand).map((item) => applyFilter(str(name), item, args.rest(), spend)));
    const attribute = args.named.get("attribute");
    if (!attribute) throw new Error("the filter map takes a filter's name or an attribute");
    const otherwise = args.named.get("default") ?? UNDEFINED;
    return list(inFilter(operand).map(attributeBy(attribute, spend, otherwise)));
  },
  max: (operand, args, spend) => sorted(itemsOf(operand), args, { case: 0 }, spend).at(-1) ?? UNDEFINED,
  min: (operand, args, spend) => sorted(itemsOf(operand), args, { case: 0 }, spend)[0] ?? UNDEFINED,
  reject: (operand, args, spend) => select(operand, args, spend, false, null),
  rejectattr: (operand, args, spend) => select(operand, args.rest(), spend, false, args.positional[0] ?? null),
  replace: ofText((text, args, spend) => {
    const count = args.get(2, "count");
    const limit = count && isInteger(count) ? count.value : null;
    return replace(text, args.text(0, "old", ""), args.text(1, "new", ""), limit, spend);
  }),
  reverse: (operand) => {
    if (isString(operand)) return toValue([...operand.value].reverse().join(""));
    return list([...itemsOf(operand)].reverse());
  },
  round: (operand, args) => {
    const value = number(operand, "round");
    const precision = args.count(0, "precision", 0);
    const method = args.text(1, "method", "common");
    if (isInteger(operand) && method === "common") return operand;
    return float(rounded(value, precision, method));
  },
  safe: (operand, _, spend) => {
    spend(size(operand));
    return safeText(str(operand));
  },
  select: (operand, args, spend) => select(operand, args, spend, true, null),
  selectattr: (operand, args, spend) => select(operand, args.rest(), spend, true, args.positional[0] ?? null),
  sort: (operand, args, spend) => {
    const attribute = args.get(2, "attribute");
    const by = attributeBy(attribute && isNull(attribute) ? undefined : attribute, spend);
    return list(sorted(itemsOf(operand), args, { reverse: 0, case: 1 }, spend, by));
  },
  string: (operand, _, spend) => {
    spend(size(operand));
    return isString(operand) ? operand : toValue(str(operand));
  },
  sum: (operand, args, spend) => {
    const items = itemsOf(operand).map(attributeBy(args.get(0, "attribute"), spend));
    const start = args.get(1, "start");
    const total = items.reduce((sum, item) => sum + number(item, "sum"), start ? number(start, "sum") : 0);
    return items.some(isFloat) || (start && isFloat(start)) ? float(total) : toValue(total);
  },
  title: ofText((text) =>
    text.replace(/[^-\s({[<]+/g, (word) => {
      const [first = "", ...rest] = word;
      return first.toUpperCase() + rest.join("").toLowerCase();
    }),
  ),
  tojson: (operand, args, spend) => {
    const layout = jsonLayout(args, spend);
    // Nesting is at most a hundred deep, so a line is indented by a hundred times the indent at most.
    if (layout.sortKeys) spend(size(operand) * 20);
    spend(size(operand) * (1 + (layout.indent?.length ?? 0) * 6 + (layout.separators?.join("").length ?? 0) / 16));
    return toValue(toJson(operand, layout));
  },
  trim: ofText((text, args) => strip(text, args.get(0, "chars")?.value)),
  unique: (operand, args, spend) => {
    const by = attributeBy(args.get(1, "attribute"), spend);
    const folds = !args.isTrue(0, "case_sensitive");
    const seen = new Set<string>();
    const items = itemsOf(operand).filter((item) => {
      const value = by(item);
      spend(size(value));
      const folded = folds && isString(value) ? toValue(value.value.toLowerCase()) : value;
      const key = isNumeric(folded) ? String(Number(folded.value)) : repr(folded);
      return seen.size < seen.add(key).size;
    });
    return list(items);
  },
  upper: ofText((text) => text.toUpperCase()),
  urlencode: ofText((text) =>
    encodeURIComponent(text.toWellFormed())
      .replace(/%2F/g, "/")
      .replace(/[!'()*]/g, percent),
  ),
  wordcount: (operand, _, spend) => {
    spend(size(operand));
    return toValue(str(operand).match(/[\p{L}\p{N}_]+/gu)?.length ?? 0);
  },
};

/** What map and select go through: nothing where they are given none. */
const inFilter = (operand: Value): Value[] => (operand.__bool__().value ? itemsOf(operand) : []);
const percent = (character: string) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`;

function character(text: string, index: number): Value | undefined {
  const found = characterAt(text, index);
  return found === undefined ? undefined : toValue(found);
}

function spaces(count: number, spend: Spend): string {
  spend(count / 16);
  return " ".repeat(Math.max(0, count));
}

function number(value: Value, filter: string): number {
  if (!isNumeric(value)) throw new Error(`the filter ${filter} takes numbers, not ${describe(value)}`);
  return Number(value.value);
}

/** int(): of a text its digits, or the whole part of a decimal; undefined for what is neither. */
function integer(operand: Value, base: number): number | undefined {
  if (isNumeric(operand)) return Math.trunc(Number(operand.value));
  if (isUndefined(operand)) throw new Error("the filter int takes no undefined value");
  if (!isString(operand)) return undefined;
  if (base !== 10) {
    if (base < 2 || base > 36) throw new Error(`the filter int takes a base from 2 to 36, not ${base}`);
    const digits = strip(operand.value).replace(/^0[xob]/i, "");
    const value = Number.parseInt(digits, base);
    return value.toString(base) === digits.toLowerCase() ? value : undefined;
  }
  const value = Number(readInteger(operand.value) ?? readFloat(operand.value));
  return Number.isFinite(value) ? Math.trunc(value) : undefined;
}

/** Halves go to the even neighbour. */
function rounded(value: number, precision: number, method: string): number {
  const scale = 10 ** precision;
  if (method === "ceil") return Math.ceil(value * scale) / scale;
  if (method === "floor") return Math.floor(value * scale) / scale;
  const whole = Math.floor(value * scale);
  const isHalf = value * scale - whole === 0.5;
  const nearest = isHalf ? whole + (whole % 2 === 0 ? 0 : 1) : Math.round(value * scale);
  return nearest / scale;
}

/** Reads a field by a path such as `function.name` or `0.id`, which is taken apart once; without one the item itself. */
function attributeBy(path: Value | undefined, spend: Spend, otherwise = UNDEFINED): (item: Value) => Value {
  if (path === undefined) return (item) => item;
  spend(size(path));
  const parts = str(path).split(".");
  return (item) => {
    spend(parts.length);
    let value = item;
    for (const part of parts) {
      const entries = isObject(value) || isNamespace(value) ? value.value : null;
      const place = /^\d+$/.test(part) ? Number(part) : -1;
      value = entries?.get(part) ?? (isArray(value) ? value.value[place] : undefined) ?? UNDEFINED;
    }
    return isUndefined(value) ? otherwise : value;
  };
}

/** Items that pass a test, or that fail it; without a test's name, those that are true. */
function select(operand: Value, args: FilterArguments, spend: Spend, passes: boolean, attribute: Value | null): Value {
  const [name, other = UNDEFINED] = args.positional;
  const test = name ? testNamed(str(name)) : (value: Value) => value.__bool__().value;
  const by = attributeBy(attribute ?? undefined, spend);
  return list(
    inFilter(operand).filter((item) => {
      const value = by(item);
      spend(1 + size(other) / 4 + size(value) / 4);
      return test(value, other) === passes;
    }),
  );
}

/** Items in order, texts without regard to case unless asked for. */
function sorted(
  items: readonly Value[],
  args: FilterArguments,
  places: { case: number; reverse?: number },
  spend: Spend,
  by: (item: Value) => Value = (item) => item,
): Value[] {
  const folds = !args.isTrue(places.case, "case_sensitive");
  const keyed = items.map((item) => {
    const value = by(item);
    spend(size(value) * 4 * Math.log2(items.length + 1));
    return { item, key: folds && isString(value) ? toValue(value.value.toLowerCase()) : value };
  });
  const sign = places.reverse !== undefined && args.isTrue(places.reverse, "reverse") ? -1 : 1;
  return keyed.sort((a, b) => sign * compare(a.key, b.key)).map(({ item }) => item);
}

function jsonLayout(args: FilterArguments, spend: Spend): JsonLayout {
  const indent = args.get(1, "indent");
  const separators = args.get(2, "separators");
  const between = separators && isArray(separators) ? separators.value.map(str) : null;
  if (between && between.length !== 2) throw new Error(`separators must be two texts, not ${between.length}`);
  return {
    ensureAscii: args.isTrue(0, "ensure_ascii"),
    indent:
      !indent || isNull(indent) ? null : isString(indent) ? indent.value : spaces(args.count(1, "indent", 0), spend),
    separators: between && [between[0]!, between[1]!],
    sortKeys: args.isTrue(3, "sort_keys"),
  };
}
