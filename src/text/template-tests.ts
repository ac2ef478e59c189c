/** Jinja's tests: `value is name`, and what select and its like take by name. */
import {
  compare,
  contains,
  equals,
  isArray,
  isBoolean,
  isFloat,
  isFunction,
  isInteger,
  isNull,
  isNumeric,
  isObject,
  isString,
  isUndefined,
  str,
  type Value,
} from "./template-values";

type Test = (value: Value, other: Value) => boolean;

const same: Test = (a, b) => a === b || (a.type === b.type && !isArray(a) && !isObject(a) && a.value === b.value);
const isCased = (text: string, cased: string) => text === cased && text.toLowerCase() !== text.toUpperCase();

const TESTS: Record<string, Test> = {
  boolean: isBoolean,
  callable: isFunction,
  defined: (value) => !isUndefined(value),
  undefined: isUndefined,
  divisibleby: (value, by) => number(value) % number(by) === 0,
  even: (value) => number(value) % 2 === 0,
  odd: (value) => number(value) % 2 !== 0,
  true: (value) => isBoolean(value) && value.value,
  false: (value) => isBoolean(value) && !value.value,
  integer: isInteger,
  float: isFloat,
  number: isNumeric,
  none: isNull,
  string: isString,
  mapping: isObject,
  sequence: (value) => isArray(value) || isObject(value) || isString(value) || isUndefined(value),
  iterable: (value) => isArray(value) || isObject(value) || isString(value) || isUndefined(value),
  lower: (value) => isCased(str(value), str(value).toLowerCase()),
  upper: (value) => isCased(str(value), str(value).toUpperCase()),
  sameas: same,
  in: (value, container) => contains(container, value),
  eq: equals,
  ne: (a, b) => !equals(a, b),
  gt: (a, b) => compare(a, b) > 0,
  ge: (a, b) => compare(a, b) >= 0,
  lt: (a, b) => compare(a, b) < 0,
  le: (a, b) => compare(a, b) <= 0,
};

const OTHER_NAMES: Record<string, string> = {
  equalto: "eq",
  "==": "eq",
  "!=": "ne",
  greaterthan: "gt",
  ">": "gt",
  ">=": "ge",
  lessthan: "lt",
  "<": "lt",
  "<=": "le",
};

/** @throws Error for a name that is no test's. */
export function testNamed(name: string): Test {
  const known = Object.hasOwn(OTHER_NAMES, name) ? OTHER_NAMES[name]! : name;
  if (!Object.hasOwn(TESTS, known)) throw new Error(`there is no test "${name}"`);
  return TESTS[known]!;
}

function number(value: Value): number {
  if (!isNumeric(value)) throw new Error("a test of numbers is made on something else");
  return Number(value.value);
}
