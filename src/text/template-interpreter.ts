/**
 * The template engine's interpreter, with a bound on its work and with Python's semantics where the engine has
 * JavaScript's. Chat templates come with checkpoints and requests: a short one can loop or grow without end.
 *
 * Every operation's cost is counted before or right after it is done, and what may multiply (repeat, replace, join,
 * indent, range, loops) before. One step is about 0.1 µs.
 */
import { type Environment, Interpreter } from "@huggingface/jinja";
import { join, replace, type Spend, stringMethod, strip, textOf } from "./python-strings";
import {
  equals,
  isArray,
  isInteger,
  isNamespace,
  isObject,
  isString,
  isUndefined,
  size,
  str,
  toValue,
  type Value,
} from "./template-values";

type Node = NonNullable<Parameters<Interpreter["evaluate"]>[0]>;

interface BinaryExpression extends Node {
  left: Node;
  right: Node;
  operator: { value: string };
}
interface For extends Node {
  iterable: Node & { lhs?: Node };
}
interface MemberExpression extends Node {
  object: Node;
  property: Node & { value?: unknown };
  computed: boolean;
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

const LOOP_ITEM_STEPS = 20;
const CALL_STEPS = 10;
/** The engine finds out by an exception that a name is not there. */
const MISSING_STEPS = 20;
/** Nesting of evaluations: a recursion of some sixty macros, well inside the JavaScript stack. */
const MAX_DEPTH = 600;

export class BoundedInterpreter extends Interpreter {
  #left: number;
  #depth = 0;
  readonly #printed = new Set<Node>();
  /** Of values that exist already, what part of going through them is paid for where they are used. */
  readonly #shares = new Map<Node, number>();

  /** @param program the parsed template; @param steps how much work it may do. */
  constructor(
    environment: Environment,
    private readonly program: Node,
    steps: number,
  ) {
    super(environment);
    this.#left = steps;
    this.#survey(program);
  }

  /** Renders the template. @throws BudgetExceeded, or an Error that says what the template did wrong. */
  render(): string {
    return str(this.evaluate(this.program, this.global));
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
    this.#left -= steps;
    if (!(this.#left >= 0)) throw new BudgetExceeded();
  };

  override evaluate(node: Node | undefined, scope: Environment): Value {
    if (node instanceof Evaluated) return node.result;
    if (!node) return super.evaluate(node, scope);
    // A name is looked up through as many scopes as there are loops and calls around it.
    this.spend(1 + this.#depth / 16);
    if (++this.#depth > MAX_DEPTH) throw new BudgetExceeded();
    try {
      // The engine's `first` of an empty list is JavaScript's undefined.
      const value = this.#dispatch(node, scope) ?? toValue(undefined);
      if (isUndefined(value)) this.spend(MISSING_STEPS);
      this.spend(extent(value) * (LOOKUPS.has(node.type) ? (this.#shares.get(node) ?? 0) : 1));
      if ((isArray(value) || isObject(value)) && size(value) > this.#left) throw new BudgetExceeded();
      if (!this.#printed.has(node)) return value;
      this.spend(size(value));
      return isString(value) ? value : toValue(str(value));
    } finally {
      this.#depth--;
    }
  }

  #dispatch(node: Node, scope: Environment): Value {
    switch (node.type) {
      case "For":
        return this.#for(node as For, scope);
      case "BinaryExpression":
        return this.#binary(node as BinaryExpression, scope);
      case "MemberExpression":
        return this.#member(node as MemberExpression, scope);
      case "CallExpression":
        this.spend(CALL_STEPS);
        return super.evaluate(node, scope);
      case "FilterExpression": {
        const { operand, filter } = node as FilterExpression;
        return this.#filter(this.evaluate(operand, scope), filter, scope);
      }
      case "FilterStatement": {
        const { body, filter } = node as FilterStatement;
        return this.#filter(super.evaluate({ type: "Program", body } as Node, scope), filter, scope);
      }
      case "TestExpression":
        return this.#test(node as TestExpression, scope);
      default:
        return super.evaluate(node, scope);
    }
  }

  #for(node: For, scope: Environment): Value {
    const { iterable } = node;
    let items = this.evaluate(iterable.type === "SelectExpression" ? iterable.lhs : iterable, scope);
    if (isString(items)) items = toValue([...items.value]);
    this.spend(extent(items) * LOOP_ITEM_STEPS);
    const known = new Evaluated(items);
    const loop = { ...node, iterable: iterable.type === "SelectExpression" ? { ...iterable, lhs: known } : known };
    return super.evaluate(loop as Node, scope);
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
      case "~":
        return toValue(str(left) + str(right));
      case "*":
        if (isString(left) && isInteger(right)) return this.#repeat(left.value, right.value);
        if (isInteger(left) && isString(right)) return this.#repeat(right.value, left.value);
        break;
      case "in":
      case "not in":
        if (isArray(right)) {
          this.spend(size(right));
          return toValue(right.value.some((item) => equals(left, item)) === (operator === "in"));
        }
        this.spend(isString(right) ? extent(right) : 0);
        break;
      case "+":
        this.spend(extent(left) + extent(right));
        break;
    }
    return super.evaluate({ ...node, left: new Evaluated(left), right: new Evaluated(right) } as Node, scope);
  }

  #repeat(text: string, times: number): Value {
    this.spend((text.length * Math.max(0, times)) / 16);
    return toValue(text.repeat(Math.max(0, times)));
  }

  #member(node: MemberExpression, scope: Environment): Value {
    const object = this.evaluate(node.object, scope);
    const known = { ...node, object: new Evaluated(object) };
    if (node.property.type === "SliceExpression") {
      this.spend(isArray(object) || isString(object) ? object.value.length : 0);
      return super.evaluate(known as Node, scope);
    }
    const property = node.computed ? this.evaluate(node.property, scope) : null;
    if (property) known.property = new Evaluated(property);
    if (!isString(object)) return super.evaluate(known as Node, scope);

    const text = object.value;
    const method = stringMethod(String(property ? property.value : node.property.value));
    this.spend(text.length / 16);
    if (!method) return super.evaluate(known as Node, scope);
    return toValue((...args: unknown[]) => {
      this.spend(text.length / 16);
      return method(text, args, this.spend);
    });
  }

  #filter(operand: Value, filter: Filter, scope: Environment): Value {
    const name = filter.callee?.value ?? filter.value ?? "";
    if (!CHEAP_FILTERS.has(name)) {
      this.spend(4 * extent(operand));
    }
    // selectattr and its like want their arguments as literals, so only these are evaluated beforehand.
    const own = OWN_FILTERS.has(name) ? this.#arguments(filter.args ?? [], scope) : null;
    const argument = (index: number, key: string) => own?.named.get(key) ?? own?.positional[index];
    const known = { type: "FilterExpression", operand: new Evaluated(operand), filter } as unknown as Node;
    switch (name) {
      case "string":
        this.spend(size(operand));
        return toValue(str(operand));
      case "trim":
        return toValue(strip(textOf(operand, name), argument(0, "chars")?.value, "both"));
      case "capitalize":
      case "title":
        return toValue(stringMethod(name)!(textOf(operand, name), [], this.spend));
      case "length":
      case "count":
        if (isString(operand)) return toValue([...operand.value].length);
        return super.evaluate({ ...known, filter: { type: "Identifier", value: "length" } } as Node, scope);
      case "list":
        if (isString(operand)) return toValue([...operand.value]);
        if (isObject(operand)) return toValue([...operand.value.keys()]);
        return super.evaluate(known, scope);
      case "replace": {
        const [from, to] = [argument(0, "old"), argument(1, "new")].map((value) => (value ? str(value) : ""));
        const count = argument(2, "count");
        return toValue(replace(str(operand), from!, to!, count && isInteger(count) ? count.value : null, this.spend));
      }
      case "join": {
        const separator = argument(0, "d");
        if (own?.named.has("attribute")) throw new Error("the filter join has no attribute here; use map before it");
        if (!isArray(operand) && !isString(operand))
          throw new Error(`the filter join takes a list, not ${operand.type}`);
        this.spend(size(operand));
        return toValue(join(operand.value, separator ? str(separator) : "", this.spend));
      }
      case "default":
      case "d": {
        const replaces = isUndefined(operand) || (argument(1, "boolean")?.value === true && !operand.__bool__().value);
        return replaces ? (argument(0, "default_value") ?? toValue("")) : operand;
      }
      case "indent": {
        const width = argument(0, "width");
        const lines = textOf(operand, name).split("\n").length;
        this.spend((lines * (width && isInteger(width) ? width.value : 4)) / 16);
        return super.evaluate({ ...known, filter: own!.inPlace(filter) } as Node, scope);
      }
      case "tojson": {
        if (isNamespace(operand)) throw new Error("a namespace is not JSON");
        const indent = argument(1, "indent");
        // Nesting is at most a hundred deep, so a line is indented by a hundred times the indent at most.
        this.spend(size(operand) * (1 + (indent && isInteger(indent) ? Math.abs(indent.value) * 6 : 0)));
        return super.evaluate({ ...known, filter: own!.inPlace(filter) } as Node, scope);
      }
      default:
        return super.evaluate(known, scope);
    }
  }

  /** Evaluates a filter's arguments; `inPlace` gives the call with their values for arguments. */
  #arguments(args: Argument[], scope: Environment) {
    const positional: Value[] = [];
    const named = new Map<string, Value>();
    const known = args.map((argument): Node => {
      if (argument.type !== "KeywordArgumentExpression") {
        const value = this.evaluate(argument, scope);
        positional.push(value);
        return new Evaluated(value);
      }
      const value = this.evaluate(argument.value, scope);
      named.set(argument.key!.value, value);
      return { ...argument, value: new Evaluated(value) } as Node;
    });
    return { positional, named, inPlace: (call: Filter) => (call.args ? { ...call, args: known } : call) };
  }

  #test(node: TestExpression, scope: Environment): Value {
    const operand = this.evaluate(node.operand, scope);
    const result = OWN_TESTS.get(node.test.value)?.(operand);
    if (result !== undefined) return toValue(result !== node.negate);
    return super.evaluate({ ...node, operand: new Evaluated(operand) } as Node, scope);
  }
}

/** Nodes that give a value that exists already. */
const LOOKUPS = new Set(["Identifier", "MemberExpression", "StringLiteral", "Ternary", "SelectExpression"]);

const OWN_FILTERS = new Set(["trim", "replace", "join", "default", "d", "indent", "tojson"]);

/** Filters that do not look at every item. */
const CHEAP_FILTERS = new Set(["length", "count", "first", "last", "default", "d"]);

const OWN_TESTS = new Map<string, (operand: Value) => boolean>([
  ["iterable", (operand) => isArray(operand) || isString(operand) || isObject(operand)],
  ["float", (operand) => operand.type === "FloatValue"],
]);

/** Statements that print nothing by themselves. */
const SILENT = new Set(["Set", "Macro", "Comment", "Break", "Continue"]);
const BODIES = new Set(["body", "alternate", "defaultBlock"]);
const UNPACKING = new Set(["SpreadExpression", "KeywordSpreadExpression"]);

/** The work of going through a value once, in steps. */
function extent(value: Value): number {
  if (isString(value)) return value.value.length / 16;
  if (isArray(value)) return value.value.length;
  return value.value instanceof Map ? value.value.size : 0;
}
