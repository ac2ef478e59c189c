/** The templates of tasks: Jinja with StrictUndefined, line ends kept, and the filter `regex_replace`. */
import { Environment, parse, tokenize } from "@huggingface/jinja";
import type { Row } from "../../data/rows";
import { UserError } from "../../errors";
import { templateGlobals } from "../../text/chat-template";
import { BoundedInterpreter, BudgetExceeded } from "../../text/template-interpreter";
import { float, isUndefined, mapping, size, str, toValue, type Value } from "../../text/template-values";
import { PythonRegex } from "./python-regex";

type Node = NonNullable<Parameters<BoundedInterpreter["evaluate"]>[0]>;
type Named = { value?: unknown };

interface Operation extends Node {
  operand: Node;
  filter?: { value?: string; callee?: { value: string }; args?: (Node & { key?: Named; value?: unknown })[] };
  test?: { value: string };
}

/** A row's fields as template values; made once a row, when the first template asks. */
export class Doc {
  #values: ReadonlyMap<string, Value> | null = null;

  /** @param floats where whole numbers are floats, as in `Rows` */
  constructor(
    readonly row: Row,
    private readonly floats: ReadonlySet<string> = new Set(),
  ) {}

  get values(): ReadonlyMap<string, Value> {
    this.#values ??= new Map(Object.entries(this.row).map(([name, value]) => [name, this.#valueOf(value, name)]));
    return this.#values;
  }

  /** The whole row as one value. */
  get value(): Value {
    return mapping(new Map(this.values));
  }

  /** A field as Python's str() has it. */
  text(name: string): string {
    const value = this.values.get(name);
    return value === undefined ? "" : str(value);
  }

  #valueOf(value: unknown, path: string): Value {
    if (typeof value === "number") return this.floats.has(path) ? float(value) : toValue(value);
    if (this.floats.size === 0 || value === null || typeof value !== "object") return toValue(value);
    if (Array.isArray(value)) {
      const items = toValue([]);
      (items.value as Value[]).push(...value.map((item) => this.#valueOf(item, path)));
      return items;
    }
    return mapping(
      new Map(Object.entries(value).map(([name, item]) => [name, this.#valueOf(item, `${path}.${name}`)])),
    );
  }
}

/** @throws Error for a name or a member that is not there */
function checkDefined(value: Value, node: Node): void {
  if (!isUndefined(value)) return;
  const { property, value: own } = node as Node & { property?: Named; value?: unknown };
  if (node.type === "Identifier") throw new Error(`"${own}" is undefined`);
  if (node.type === "MemberExpression") throw new Error(`it has no "${property?.value ?? "such item"}"`);
}

/** Filters and tests that may look at what is not there. */
const lenient = new Set(["default", "d", "defined", "undefined"]);

class StrictInterpreter extends BoundedInterpreter {
  readonly #mayMiss = new Set<Node>();

  override evaluate(node: Node | undefined, scope: Environment): Value {
    if (node?.type === "FilterExpression" || node?.type === "TestExpression") {
      const { operand, filter, test } = node as Operation;
      const name = filter?.callee?.value ?? filter?.value ?? test?.value ?? "";
      if (lenient.has(name)) this.#mayMiss.add(operand);
      if (node.type === "FilterExpression" && name === "regex_replace")
        return this.#regexReplace(node as Operation, scope);
    }
    const value = super.evaluate(node, scope);
    if (node && !this.#mayMiss.has(node)) checkDefined(value, node);
    return value;
  }

  protected override printed(value: Value, node: Node): string {
    checkDefined(value, node);
    return super.printed(value, node);
  }

  #regexReplace({ operand, filter }: Operation, scope: Environment): Value {
    const printed = (node: Node) => {
      const value = this.evaluate(node, scope);
      this.spend(size(value));
      return str(value);
    };
    const text = printed(operand);
    const given: Record<string, string> = {};
    for (const [i, argument] of (filter?.args ?? []).entries()) {
      const named = argument.type === "KeywordArgumentExpression";
      const name = named ? String(argument.key?.value) : ["pattern", "repl", "count"][i];
      given[name ?? ""] = printed(named ? (argument.value as Node) : argument);
    }
    const { pattern, repl, count = "0" } = given;
    if (pattern === undefined || repl === undefined) throw new Error("regex_replace takes a pattern and a replacement");
    this.spend(text.length);
    const result = new PythonRegex(pattern, "regex_replace").sub(repl, text, Number(count));
    this.spend(result.length / 16);
    return toValue(result);
  }
}

/** What a template may do, in steps. */
const steps = { base: 1_000_000, perInputStep: 64 };

/** Longer than any task's. */
const longest = 200_000;

const parsed = new Map<string, Template>();

export class Template {
  readonly #program: ReturnType<typeof parse> | null;
  readonly #text: string;

  private constructor(source: string) {
    if (source.length > longest) throw new Error("it is too long");
    this.#text = source.replace(/\r\n?/g, "\n");
    // The engine drops one line end; Jinja is told to keep it.
    const kept = this.#text.endsWith("\n") ? `${this.#text}\n` : this.#text;
    this.#program = /\{[{%#]/.test(source) ? parse(tokenize(kept)) : null;
  }

  /** @param owner where it stands, for messages. @throws UserError for a text that is no template */
  static of(source: string, owner: string): Template {
    const known = parsed.get(source);
    if (known) return known;
    try {
      const template = new Template(source);
      parsed.set(source, template);
      return template;
    } catch (cause) {
      throw new UserError(`${owner} is no template: ${(cause as Error).message.trim()}`, {
        hint: "Repair it in the task's file.",
        cause,
      });
    }
  }

  /** @throws UserError where the template names what the row has not, or does not come to an end */
  render(doc: Doc, owner: string): string {
    if (!this.#program) return this.#text;
    const environment = new Environment();
    const { values } = doc;
    let inputs = 0;
    try {
      for (const value of values.values()) inputs += size(value);
      const interpreter = new StrictInterpreter(environment, this.#program, steps.base + steps.perInputStep * inputs);
      for (const [name, value] of Object.entries(templateGlobals(interpreter.spend, new Date()))) {
        environment.setVariable(name, value);
      }
      for (const [name, value] of values) environment.setVariable(name, value);
      return interpreter.render();
    } catch (cause) {
      if (cause instanceof UserError) throw cause;
      const endless = cause instanceof BudgetExceeded || cause instanceof RangeError;
      const problem = endless ? "it takes too much work; it may never end" : (cause as Error).message.trim();
      throw new UserError(`${owner} failed: ${problem}`, {
        hint: `The row has the columns ${Object.keys(doc.row).join(", ")}.`,
        cause,
      });
    }
  }
}
