/**
 * The template engine's interpreter, with a bound on its work and with Python's semantics where the engine has
 * JavaScript's or none. Chat templates come with checkpoints and requests: a short one can loop or grow without end.
 *
 * Every operation's cost is counted before or right after it is done, and what may multiply (repeat, replace, join,
 * indent, range, loops) before. One step is about 0.1 µs.
 */
import { Environment, Interpreter } from "@huggingface/jinja";
import type { Spend } from "./python-strings";
import { applyFilter, FilterArguments } from "./template-filters";
import { memberOfList, memberOfMapping, memberOfText } from "./template-members";
import { testNamed } from "./template-tests";
import {
  callable,
  compare,
  contains,
  describe,
  equals,
  escapeText,
  extent,
  float,
  isArray,
  isFloat,
  isFunction,
  isInteger,
  isNumeric,
  isObject,
  isSafe,
  isString,
  isTuple,
  isUndefined,
  itemsOf,
  type Key,
  keyOf,
  list,
  mapping,
  safeText,
  size,
  str,
  toValue,
  tuple,
  UNDEFINED,
  type Value,
} from "./template-values";

type Node = NonNullable<Parameters<Interpreter["evaluate"]>[0]>;

interface If extends Node {
  test: Node;
  body: Node[];
  alternate: Node[];
}
interface BinaryExpression extends Node {
  left: Node;
  right: Node;
  operator: { value: string };
}
interface For extends Node {
  loopvar: Node & { value: string | Node[] };
  iterable: Node & { lhs?: Node; test?: Node };
  body: Node[];
  defaultBlock: Node[];
}
interface Macro extends Node {
  name: { value: string };
}
interface MemberExpression extends Node {
  object: Node & { value?: unknown };
  property: Node & { value?: unknown };
  computed: boolean;
}
interface ObjectLiteral extends Node {
  value: Map<Node, Node>;
}
interface Filter extends Node {
  value?: string;
  callee?: { value: string };
  args?: Argument[];
}
interface Argument extends Node {
  key?: { value: string };
  value?: Node;
}
interface FilterExpression extends Node {
  operand: Node;
  filter: Filter;
}
interface FilterStatement extends Node {
  body: Node[];
  filter: Filter;
}
interface TestExpression extends Node {
  operand: Node;
  negate: boolean;
  test: { value: string };
}

/** A node whose value is known: operands are evaluated here, looked at, and handed to the engine as these. */
class Evaluated implements Node {
  readonly type = "Evaluated";
  constructor(readonly result: Value) {}
}

export class BudgetExceeded extends Error {}

/** A break or continue on its way to the loop, with what the turn has written so far. */
class LoopControl extends Error {
  text = "";
  constructor(readonly kind: "Break" | "Continue") {
    super(`"${kind.toLowerCase()}" stands outside of a loop`);
  }
}

/** Milliseconds that a rendering may take; a long chat has as many as its steps are to take. */
const CLOCK = 2000;
const MILLISECONDS_A_STEP = 0.0001;
/** One or two milliseconds. */
const STEPS_A_LOOK = 20_000;
/** Some 100 MB of list items. */
const MOST_MADE = 1_000_000;
const LOOP_ITEM_STEPS = 20;
const CALL_STEPS = 10;
/** The engine finds out by an exception that a name is not there. */
const MISSING_STEPS = 20;
/** Nesting of evaluations: a recursion of some sixty macros, well inside the JavaScript stack. */
const MAX_DEPTH = 600;

export class BoundedInterpreter extends Interpreter {
  #left: number;
  /** Steps that are left when the clock is looked at again. */
  #nextLook: number;
  /** When the rendering has to be done, by performance.now(); counted from its first step. */
  #ends: number | null = null;
  readonly #time: number;
  #made = 0;
  readonly #mostMade: number;
  #depth = 0;
  readonly #printed = new Set<Node>();
  /** Of values that exist already, what part of going through them is paid for where they are used. */
  readonly #shares = new Map<Node, number>();

  /** @param program the parsed template; @param steps how much work it may do. */
  constructor(
    environment: Environment,
    private readonly program: Node,
    private readonly steps: number,
  ) {
    super(environment);
    this.#left = steps;
    this.#nextLook = steps;
    this.#time = Math.max(CLOCK, steps * MILLISECONDS_A_STEP);
    this.#mostMade = Math.max(MOST_MADE, steps / 4);
    this.#survey(program);
  }

  /** Renders the template. @throws BudgetExceeded, or an Error that says what the template did wrong. */
  render(): string {
    return str(this.evaluate(this.program, this.global));
  }

  /** The steps taken so far. */
  get spent(): number {
    return this.steps - this.#left;
  }

  /** Notes the nodes whose values are written out, and those that calls go through. */
  #survey(part: unknown): void {
    if (Array.isArray(part)) for (const item of part) this.#survey(item);
    else if (part instanceof Map) this.#survey([...part].flat());
    else if (part !== null && typeof part === "object") {
      for (const [name, child] of Object.entries(part)) {
        if (BODIES.has(name) && Array.isArray(child)) {
          for (const node of child as Node[]) if (!SILENT.has(node.type)) this.#printed.add(node);
        }
        if (name === "argument" && UNPACKING.has((part as Node).type)) this.#shares.set(child as Node, 1);
        // Few functions look into a list that they are given, and those do little with an item.
        if (name === "args" && Array.isArray(child)) for (const node of child as Node[]) this.#shares.set(node, 1 / 16);
        this.#survey(child);
      }
    }
  }

  readonly spend: Spend = (steps) => {
    this.#left -= Math.max(0, steps);
    if (!(this.#left >= 0)) throw new BudgetExceeded();
    if (this.#left > this.#nextLook) return;
    this.#nextLook = this.#left - STEPS_A_LOOK;
    this.#ends ??= performance.now() + this.#time;
    if (performance.now() > this.#ends) throw new BudgetExceeded();
  };

  /** Counts what a value takes in memory, in list items or runs of sixteen characters. */
  #make(units: number): void {
    this.#made += units;
    if (!(this.#made <= this.#mostMade)) throw new BudgetExceeded();
  }

  override evaluate(node: Node | undefined, scope: Environment): Value {
    if (node instanceof Evaluated) return node.result;
    if (!node) return super.evaluate(node, scope);
    // A name is looked up through as many scopes as there are loops and calls around it.
    this.spend(1 + this.#depth / 16);
    if (++this.#depth > MAX_DEPTH) throw new BudgetExceeded();
    try {
      const value = this.#dispatch(node, scope);
      if (isUndefined(value)) this.spend(MISSING_STEPS);
      if (!LOOKUPS.has(node.type)) this.#make(extent(value));
      this.spend(extent(value) * (LOOKUPS.has(node.type) ? (this.#shares.get(node) ?? 0) : 1));
      if ((isArray(value) || isObject(value)) && size(value) > this.#left) throw new BudgetExceeded();
      if (!this.#printed.has(node)) return value;
      this.spend(size(value));
      return isString(value) ? value : toValue(this.printed(value, node));
    } finally {
      this.#depth--;
    }
  }

  /** A value as it is written out; what is undefined is nothing. */
  protected printed(value: Value, _node: Node): string {
    return str(value);
  }

  #dispatch(node: Node, scope: Environment): Value {
    switch (node.type) {
      case "If": {
        const { test, body, alternate } = node as If;
        return this.#block(this.evaluate(test, scope).__bool__().value ? body : alternate, scope);
      }
      case "For":
        return this.#for(node as For, scope);
      case "Break":
      case "Continue":
        throw new LoopControl(node.type);
      case "Macro":
        return this.#macro(node as Macro, scope);
      case "BinaryExpression":
        return this.#binary(node as BinaryExpression, scope);
      case "MemberExpression":
        return this.#member(node as MemberExpression, scope);
      case "ObjectLiteral":
        return this.#mapping(node as ObjectLiteral, scope);
      case "CallExpression":
        this.spend(CALL_STEPS);
        return super.evaluate(node, scope);
      case "FilterExpression": {
        const { operand, filter } = node as FilterExpression;
        return this.#filter(this.evaluate(operand, scope), filter, scope);
      }
      case "FilterStatement": {
        const { body, filter } = node as FilterStatement;
        return this.#filter(this.#block(body, new Environment(scope)), filter, scope);
      }
      case "TestExpression": {
        const { operand, negate, test } = node as TestExpression;
        const value = this.evaluate(operand, scope);
        if (LOOKING.has(test.value)) this.spend(size(value));
        return toValue(testNamed(test.value)(value, UNDEFINED) !== negate);
      }
      default:
        return super.evaluate(node, scope);
    }
  }

  /** What statements write. A break or continue on its way out takes along what was written before it. */
  #block(body: readonly Node[], scope: Environment): Value {
    const texts: string[] = [];
    try {
      for (const node of body) {
        const value = this.evaluate(node, scope);
        if (this.#printed.has(node)) texts.push(str(value));
      }
    } catch (error) {
      if (error instanceof LoopControl) error.text = texts.join("") + error.text;
      throw error;
    }
    return toValue(texts.join(""));
  }

  /** Each turn has a scope of its own: what it sets is forgotten at its end. */
  #for(node: For, scope: Environment): Value {
    const { iterable, loopvar } = node;
    const isFiltered = iterable.type === "SelectExpression";
    const source = this.evaluate(isFiltered ? iterable.lhs : iterable, scope);
    this.spend((isString(source) ? source.value.length : extent(source)) * LOOP_ITEM_STEPS);
    const all = itemsOf(source);
    const items = isFiltered
      ? all.filter((item) => this.evaluate(iterable.test, bind(new Environment(scope), loopvar, item)).__bool__().value)
      : all;
    if (items.length === 0) return this.#block(node.defaultBlock, scope);

    const texts: string[] = [];
    let seen: Value | null = null;
    const changed = (args: Value[]) => {
      const now = list(args);
      this.spend(args.reduce((sum, arg) => sum + size(arg), 0));
      const isNew = seen === null || !equals(seen, now);
      seen = now;
      return toValue(isNew);
    };
    for (const [i, item] of items.entries()) {
      const turn = bind(new Environment(scope), loopvar, item);
      turn.setVariable("loop", loopVariable(items, i, changed));
      try {
        texts.push(str(this.#block(node.body, turn)));
      } catch (error) {
        if (!(error instanceof LoopControl)) throw error;
        texts.push(error.text);
        if (error.kind === "Break") break;
      }
    }
    return toValue(texts.join(""));
  }

  /** A macro sees the names where it stands, not where it is called; only its caller comes along. */
  #macro(node: Macro, scope: Environment): Value {
    super.evaluate(node, scope);
    const macro = scope.lookupVariable(node.name.value);
    if (!isFunction(macro)) return UNDEFINED;
    const call = macro.value;
    macro.value = (args, caller) => {
      const inner = new Environment(scope);
      const body = caller.variables.get("caller");
      if (body) inner.setVariable("caller", body);
      return call(args, inner);
    };
    return UNDEFINED;
  }

  #mapping(node: ObjectLiteral, scope: Environment): Value {
    const entries = new Map<Key, Value>();
    for (const [key, value] of node.value) {
      const known = keyOf(entries, this.evaluate(key, scope));
      entries.set(known, this.evaluate(value, scope));
    }
    return mapping(entries);
  }

  #binary(node: BinaryExpression, scope: Environment): Value {
    const operator = node.operator.value;
    if (operator === "and" || operator === "or") return super.evaluate(node, scope);
    const left = this.evaluate(node.left, scope);
    const right = this.evaluate(node.right, scope);
    switch (operator) {
      case "==":
      case "!=":
        this.spend(Math.min(size(left), size(right)));
        return toValue(equals(left, right) === (operator === "=="));
      case "<":
      case "<=":
      case ">":
      case ">=":
        this.spend(Math.min(size(left), size(right)));
        return toValue(ORDERS[operator](compare(left, right)));
      case "in":
      case "not in":
        this.spend(isArray(right) ? size(right) + right.value.length * size(left) : extent(right));
        return toValue(contains(right, left) === (operator === "in"));
      case "~":
        this.spend(size(left) + size(right));
        return toValue(str(left) + str(right));
      case "+":
        if (!isNumeric(left) || !isNumeric(right)) return this.#join(left, right);
        break;
      case "*":
        if (isInteger(right) && !isNumeric(left)) return this.#repeat(left, right.value);
        if (isInteger(left) && !isNumeric(right)) return this.#repeat(right, left.value);
        break;
    }
    return arithmetic(operator, left, right);
  }

  #join(left: Value, right: Value): Value {
    this.spend(extent(left) + extent(right));
    if (isString(left) && isString(right)) {
      if (!isSafe(left) && !isSafe(right)) return toValue(left.value + right.value);
      this.spend(size(left) + size(right));
      return safeText(escapeText(left) + escapeText(right));
    }
    if (!isArray(left) || left.type !== right.type) {
      throw new Error(`${describe(left)} and ${describe(right)} can't be added`);
    }
    const items = [...left.value, ...(right.value as Value[])];
    return isTuple(left) ? tuple(items) : list(items);
  }

  #repeat(value: Value, given: number): Value {
    const times = Math.max(0, given);
    if (isString(value)) {
      this.spend((value.value.length * times) / 16);
      return toValue(value.value.repeat(times));
    }
    if (!isArray(value)) throw new Error(`${describe(value)} can't be repeated`);
    if (value.value.length === 0) return value;
    this.spend(value.value.length * times);
    const items = Array.from({ length: times }, () => value.value).flat();
    return isTuple(value) ? tuple(items) : list(items);
  }

  #member(node: MemberExpression, scope: Environment): Value {
    const object = this.evaluate(node.object, scope);
    if (isUndefined(object)) {
      const name = node.object.type === "Identifier" ? `"${node.object.value}"` : "what a member is taken of";
      throw new Error(`${name} is undefined`);
    }
    if (node.property.type === "SliceExpression") {
      this.spend(isArray(object) || isString(object) ? object.value.length : 0);
      const slice = super.evaluate({ ...node, object: new Evaluated(object) } as Node, scope);
      return isTuple(object) && isArray(slice) ? tuple(slice.value) : slice;
    }
    const property = node.computed ? this.evaluate(node.property, scope) : toValue(node.property.value);
    if (isString(object)) return memberOfText(object.value, property, this.spend);
    if (isArray(object)) {
      if (isInteger(property)) return object.value.at(property.value) ?? UNDEFINED;
      this.spend(size(property));
      return memberOfList(object.value, str(property), this.spend);
    }
    if (isObject(object)) {
      const entries: Map<Key, Value> = object.value;
      const item = () => entries.get(keyOf(entries, property));
      const method = () => (isString(property) ? memberOfMapping(entries, property.value, this.spend) : undefined);
      return (node.computed ? (item() ?? method()) : (method() ?? item())) ?? UNDEFINED;
    }
    const known = { object: new Evaluated(object), property: node.computed ? new Evaluated(property) : node.property };
    return super.evaluate({ ...node, ...known } as Node, scope);
  }

  #filter(operand: Value, filter: Filter, scope: Environment): Value {
    const positional: Value[] = [];
    const named = new Map<string, Value>();
    for (const argument of filter.args ?? []) {
      if (argument.type !== "KeywordArgumentExpression") positional.push(this.evaluate(argument, scope));
      else named.set(argument.key!.value, this.evaluate(argument.value, scope));
    }
    const name = filter.callee?.value ?? filter.value ?? "";
    return applyFilter(name, operand, new FilterArguments(positional, named), this.spend);
  }
}

const ORDERS = {
  "<": (order: number) => order < 0,
  "<=": (order: number) => order <= 0,
  ">": (order: number) => order > 0,
  ">=": (order: number) => order >= 0,
};

/** Names the item of a turn, or its parts. */
function bind(scope: Environment, { type, value }: For["loopvar"], item: Value): Environment {
  if (type === "Identifier") {
    scope.setVariable(value as string, item);
    return scope;
  }
  const names = value as (Node & { value?: unknown })[];
  const parts = itemsOf(item);
  if (parts.length !== names.length) throw new Error(`${parts.length} parts can't be named by ${names.length} names`);
  for (const [i, name] of names.entries()) bind(scope, name as For["loopvar"], parts[i]!);
  return scope;
}

function loopVariable(items: readonly Value[], index: number, changed: (args: Value[]) => Value): Value {
  const fields: Record<string, Value> = {
    index: toValue(index + 1),
    index0: toValue(index),
    revindex: toValue(items.length - index),
    revindex0: toValue(items.length - index - 1),
    first: toValue(index === 0),
    last: toValue(index === items.length - 1),
    length: toValue(items.length),
    previtem: items[index - 1] ?? UNDEFINED,
    nextitem: items[index + 1] ?? UNDEFINED,
    cycle: callable((args) => args[index % args.length] ?? UNDEFINED),
    changed: callable(changed),
  };
  return mapping(new Map(Object.entries(fields)));
}

/** Arithmetic of numbers; booleans are 0 and 1, and remainders have the divisor's sign. */
function arithmetic(operator: string, left: Value, right: Value): Value {
  if (!isNumeric(left) || !isNumeric(right)) {
    throw new Error(`"${operator}" takes numbers, not ${describe(left)} and ${describe(right)}`);
  }
  const [a, b] = [Number(left.value), Number(right.value)];
  if (b === 0 && (operator === "/" || operator === "//" || operator === "%")) throw new Error("a division by zero");
  const results: Record<string, number> = {
    "+": a + b,
    "-": a - b,
    "*": a * b,
    "/": a / b,
    "//": Math.floor(a / b),
    "%": a - b * Math.floor(a / b),
    "**": a ** b,
  };
  const result = results[operator];
  if (result === undefined || !Number.isFinite(result)) throw new Error(`"${operator}" has no result`);
  const isExact = !isFloat(left) && !isFloat(right) && operator !== "/" && Number.isInteger(result);
  return isExact ? toValue(result) : float(result);
}

/** Tests that look at all of a value. */
const LOOKING = new Set(["lower", "upper", "in", "eq", "ne", "equalto", "==", "!="]);

/** Nodes that give a value that exists already. */
const LOOKUPS = new Set(["Identifier", "MemberExpression", "StringLiteral", "Ternary", "SelectExpression"]);

/** Statements that print nothing by themselves. */
const SILENT = new Set(["Set", "Macro", "Comment", "Break", "Continue"]);
const BODIES = new Set(["body", "alternate", "defaultBlock"]);
const UNPACKING = new Set(["SpreadExpression", "KeywordSpreadExpression"]);
