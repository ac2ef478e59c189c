/** Chat templates: Jinja as transformers runs it, under a bound on work and output. */
import { Environment, parse, tokenize } from "@huggingface/jinja";
import { ExitCode, UserError } from "../errors";
import type { Spend } from "./python-strings";
import { strftime } from "./strftime";
import { BoundedInterpreter, BudgetExceeded } from "./template-interpreter";
import {
  callable,
  describe,
  extent,
  isInteger,
  isObject,
  list,
  mapping,
  NONE,
  size,
  str,
  toValue,
  UNDEFINED,
  type Value,
} from "./template-values";

/** A message as templates see it: role, content (text, or a list of parts), and whatever else a model knows. */
export interface ChatMessage {
  role: string;
  content?: string | ContentPart[] | null;
  [field: string]: unknown;
}

export interface ContentPart {
  type: string;
  text?: string;
  [field: string]: unknown;
}

export interface ChatOptions {
  /** Ends the prompt with the header of the model's answer. */
  addGenerationPrompt?: boolean;
  /** Leaves the last message open for the model to go on with: its content, or the field that is named. */
  continueFinalMessage?: boolean | string;
  /** Functions that the model may call, as JSON schemas. */
  tools?: unknown[] | null;
  documents?: unknown[] | null;
  /** More variables for the template; they win over the tokenizer's own. */
  kwargs?: Record<string, unknown>;
  /** What strftime_now tells; the present by default. */
  now?: Date;
}

/** Three times the largest template that is known of; the engine takes some 0.1 s for as much. */
const MAX_TEMPLATE = 100_000;
/** The engine scans runs of whitespace in quadratic time. */
const LONG_WHITESPACE = /\s{500}/;

/**
 * What a template may do, in steps: so much for any chat, and more with what it is given to look at. Some models'
 * templates look at all other messages for each one, in 20 steps a pair; the rest of a short chat takes some 10,000.
 */
const STEPS = { base: 250_000, perMessage: 1_000, perPair: 40, perInputStep: 64 };

const REASONING_FIELDS = ["reasoning_content", "thinking", "reasoning"];

class Refused extends Error {}

export class ChatTemplate {
  readonly #program: ReturnType<typeof parse>;

  /**
   * @param source the Jinja text.
   * @param owner what it belongs to, for error messages.
   * @throws UserError for a template that does not parse.
   */
  constructor(
    private readonly source: string,
    private readonly owner: string,
  ) {
    if (source.length > MAX_TEMPLATE || LONG_WHITESPACE.test(source)) {
      throw this.#error("is too large to be a chat template");
    }
    try {
      const lines = source.replace(/\r\n?/g, "\n");
      this.#program = parse(tokenize(lines, { lstrip_blocks: true, trim_blocks: true }));
    } catch (cause) {
      // The engine reads beyond the last token of a template that is cut.
      const problem = cause instanceof TypeError ? "it ends in the middle" : reason(cause);
      throw this.#error(`does not parse: ${problem}`, { cause });
    }
  }

  /**
   * Renders the prompt of a chat.
   * @throws UserError where the template refuses the messages, uses what the engine lacks, or does not come to an end.
   */
  render(messages: ChatMessage[], options: ChatOptions = {}): string {
    if (messages.length === 0) throw new UserError("A chat needs at least one message.");
    if (options.kwargs && Object.hasOwn(options.kwargs, "messages")) {
      throw new UserError('"messages" can\'t be a variable of the chat template: it holds the chat', {
        code: ExitCode.usage,
        hint: "Take it out of --chat-template-config.",
      });
    }
    const chat = messages.map(withoutNulls).map(aliasReasoning);
    if (!options.continueFinalMessage) return this.#run(chat, options);
    if (options.addGenerationPrompt) {
      throw new UserError("A prompt can't both continue the last message and open a new one.");
    }
    return this.#continue(chat, options);
  }

  #run(messages: ChatMessage[], options: ChatOptions): string {
    const inputs = {
      messages,
      tools: options.tools ?? null,
      documents: options.documents ?? null,
      add_generation_prompt: options.addGenerationPrompt ?? false,
      ...options.kwargs,
    };
    const environment = new Environment();
    try {
      const interpreter = new BoundedInterpreter(environment, this.#program, budget(messages.length, toValue(inputs)));
      const globals = templateGlobals(interpreter.spend, options.now ?? new Date());
      for (const [name, value] of Object.entries(globals)) environment.setVariable(name, value);
      for (const [name, value] of Object.entries(inputs)) environment.setVariable(name, toValue(value));
      return interpreter.render();
    } catch (cause) {
      throw this.#failure(cause);
    }
  }

  /** Marks the end of the last message, renders, and cuts at the mark. */
  #continue(messages: ChatMessage[], options: ChatOptions): string {
    const field = typeof options.continueFinalMessage === "string" ? options.continueFinalMessage : "content";
    const { final, marked, fields } = markFinal(messages.at(-1)!, field);
    if (!fields.some((name) => this.source.includes(name))) {
      throw this.#error(`has no place for "${field}", so the last message can't be continued`);
    }
    const text = this.#run([...messages.slice(0, -1), marked], options);
    const end = text.lastIndexOf(MARK.trim());
    if (end < 0 || !text.includes(final.trim())) {
      throw this.#error("changes the last message, so it can't be continued");
    }
    // A template that trims the message leaves only a part of the mark; the spaces before it go too then.
    return text.startsWith(MARK, end) ? text.slice(0, end) : text.slice(0, end).trimEnd();
  }

  #failure(cause: unknown): UserError {
    if (cause instanceof BudgetExceeded) {
      return this.#error("takes too much work to render; it may never end", { cause });
    }
    if (cause instanceof Refused) {
      return this.#error(`refuses these messages: ${reason(cause)}`, {
        hint: "Change the messages to what the model's template accepts, or ignore the template.",
        cause,
      });
    }
    return this.#error(`failed: ${reason(cause)}`, { cause });
  }

  #error(problem: string, options: { hint?: string; cause?: unknown } = {}): UserError {
    return new UserError(`The chat template of ${this.owner} ${problem.replace(/[^.!?]$/, "$&.")}`, options);
  }
}

/** What every template can name, beside the engine's namespace. */
export function templateGlobals(spend: Spend, now: Date): Record<string, Value> {
  const [yes, no] = [toValue(true), toValue(false)];
  return {
    ...{ true: yes, True: yes, false: no, False: no, none: NONE, None: NONE },
    raise_exception: callable(([message = UNDEFINED]) => {
      spend(size(message));
      throw new Refused(str(message));
    }),
    strftime_now: callable(([format = UNDEFINED]) => {
      spend(size(format) * 4);
      return toValue(strftime(now, str(format)));
    }),
    range: callable((bounds) => {
      const [first = 0, second, step = 1] = bounds.map(integerOf);
      const [start, stop] = second === undefined ? [0, first] : [first, second];
      if (step === 0) throw new Error("range() takes a step other than 0");
      const count = Math.max(0, Math.ceil((stop - start) / step));
      spend(count * 2);
      return list(Array.from({ length: count }, (_, i) => toValue(start + i * step)));
    }),
    dict: callable((args) => {
      spend(args.reduce((sum, arg) => sum + extent(arg), 0));
      return mapping(new Map(args.flatMap((arg) => (isObject(arg) ? [...arg.value] : []))));
    }),
  };
}

function integerOf(value: Value): number {
  if (!isInteger(value)) throw new Error(`range() takes integers, not ${describe(value)}`);
  return value.value;
}

function budget(messages: number, inputs: Value): number {
  return STEPS.base + (STEPS.perMessage + STEPS.perPair * messages) * messages + STEPS.perInputStep * size(inputs);
}

const MARK = "CONTINUE_FINAL_MESSAGE_TAG ";

/** The last message with a mark at its end, the text that it had, and the fields by which a template may show it. */
function markFinal(message: ChatMessage, field: string): { final: string; marked: ChatMessage; fields: string[] } {
  const value = message[field];
  if (typeof value === "string") {
    const fields = REASONING_FIELDS.includes(field)
      ? REASONING_FIELDS.filter((name) => message[name] === value)
      : [field];
    const marked = Object.fromEntries(fields.map((name) => [name, value + MARK]));
    return { final: value, marked: { ...message, ...marked }, fields };
  }
  const parts = Array.isArray(value) ? (value as ContentPart[]) : [];
  const last = parts.findLastIndex((part) => typeof part.text === "string");
  if (last < 0) throw new UserError(`The last message has no text in "${field}" to continue.`);
  const final = parts[last]!.text!;
  const marked = parts.with(last, { ...parts[last]!, text: final + MARK });
  return { final, marked: { ...message, [field]: marked }, fields: [field] };
}

/** APIs send null for what is absent; templates rather test whether a field is there. */
function withoutNulls(message: ChatMessage): ChatMessage {
  return Object.fromEntries(Object.entries(message).filter(([, value]) => value != null)) as ChatMessage;
}

/** A message's reasoning goes by several names; templates read the first, gpt-oss's the second. */
function aliasReasoning(message: ChatMessage): ChatMessage {
  const reasoning = REASONING_FIELDS.map((name) => message[name]).find((value) => value != null);
  return reasoning == null ? message : { thinking: reasoning, ...message, reasoning_content: reasoning };
}

function reason(cause: unknown): string {
  if (cause instanceof RangeError) return "it is nested too deep";
  return (cause as Error).message.trim();
}
