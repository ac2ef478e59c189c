/** What a template finds behind the dot or in brackets: characters, and the methods of Python's str, list and dict. */
import { type Spend, stringMethod } from "./python-strings";
import {
  callable,
  entriesOf,
  equals,
  isInteger,
  type Key,
  keyOf,
  list,
  NONE,
  size,
  str,
  toValue,
  tuple,
  UNDEFINED,
  type Value,
} from "./template-values";
import { characterAt } from "./text-search";

export function memberOfText(text: string, property: Value, spend: Spend): Value {
  spend(text.length / 16 + size(property));
  if (isInteger(property)) {
    const character = characterAt(text, property.value);
    return character === undefined ? UNDEFINED : toValue(character);
  }
  const method = stringMethod(str(property));
  if (!method) return UNDEFINED;
  return callable((args) => {
    spend(text.length / 16 + args.reduce((sum, arg) => sum + size(arg), 0));
    const values = args.map(({ value }) => value);
    const result = method(text, values, spend);
    return typeof result === "object" && "tuple" in result ? tuple(result.tuple.map(toValue)) : toValue(result);
  });
}

export function memberOfList(items: readonly Value[], name: string, spend: Spend): Value {
  const find = ([sought = UNDEFINED]: Value[]) => {
    spend(items.length * size(sought));
    return items.map((item) => equals(item, sought));
  };
  switch (name) {
    case "count":
      return callable((args) => toValue(find(args).filter(Boolean).length));
    case "index":
      return callable((args) => {
        const index = find(args).indexOf(true);
        if (index < 0) throw new Error("what index() looks for is not in the list");
        return toValue(index);
      });
    default:
      return UNDEFINED;
  }
}

/** Undefined where a mapping has no such method. */
export function memberOfMapping(entries: Map<Key, Value>, name: string, spend: Spend): Value | undefined {
  const paid = (make: () => Value) =>
    callable(() => {
      spend(entries.size);
      return make();
    });
  switch (name) {
    case "get":
      return callable(([key = UNDEFINED, otherwise = NONE]) => entries.get(keyOf(entries, key)) ?? otherwise);
    case "items":
      return paid(() => entriesOf(entries));
    case "keys":
      return paid(() => list([...entries.keys()].map(toValue)));
    case "values":
      return paid(() => list([...entries.values()]));
    default:
      return undefined;
  }
}
