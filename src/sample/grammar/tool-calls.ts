/**
 * Calls of tools as a grammar: how each format writes a name, and arguments by the tool's schema. Of formats that have no
 * entry here, a call is asked for by its markers alone, and its inside is free.
 */
import { ExitCode, UserError } from "../../errors";
import type { Tokenizer } from "../../text/tokenizer";
import { TOOL_FORMATS, type ToolFormat, type ToolFormatName } from "../../text/tools";
import type { GrammarText } from "./grammar-text";
import { checkedSchema } from "./schema";
import { isSchema, type Schema } from "./schema-place";

export interface ToolsFormat {
  type: "tools";
  /** Functions as OpenAI's API describes them. */
  tools: readonly unknown[];
  /** Whether there may be several calls; one unless said. */
  parallel?: boolean;
  /** Whether there may be text, and no call at all. */
  optional?: boolean;
}

/** A piece of xgrammar's structural tags. */
type Piece = { type: string; [option: string]: unknown };

/** How xgrammar writes arguments. */
type Style = "json" | "qwen_xml" | "glm_xml" | "minimax_xml";

/** What stands around a call's arguments, and around all calls. */
interface Layout {
  style: Style;
  before: (name: string) => string;
  after: string;
  open?: string;
  close?: string;
  between?: string;
}

const quoted = (name: string) => JSON.stringify(name);

const byName = (start: string, end: string): Layout => ({
  style: "json",
  before: (name) => `${start}{"name": ${quoted(name)}, "arguments": `,
  after: `}${end}`,
});

const LAYOUTS: Partial<Record<ToolFormatName, Layout>> = {
  json_tools: { ...byName("<tool_call>\n", "\n</tool_call>"), between: "\n" },
  longcat: { ...byName("<longcat_tool_call>", "</longcat_tool_call>"), between: "\n" },
  qwen3_coder: {
    style: "qwen_xml",
    before: (name) => `<tool_call>\n<function=${name}>\n`,
    after: "\n</function>\n</tool_call>",
    between: "\n",
  },
  glm47: { style: "glm_xml", before: (name) => `<tool_call>${name}\n`, after: "\n</tool_call>", between: "\n" },
  minimax_m2: {
    style: "minimax_xml",
    open: "<minimax:tool_call>\n",
    before: (name) => `<invoke name="${name}">\n`,
    after: "\n</invoke>",
    close: "\n</minimax:tool_call>",
    between: "\n",
  },
  kimi_k2: {
    style: "json",
    open: "<|tool_calls_section_begin|>",
    before: (name) => `<|tool_call_begin|>functions.${name}:0<|tool_call_argument_begin|>`,
    after: "<|tool_call_end|>",
    close: "<|tool_calls_section_end|>",
  },
};

/** Mistral's newer models write a name and `[ARGS]`, which is a token then; older ones a list. */
function mistralLayout(tokenizer: Tokenizer): Layout {
  if (tokenizer.idOf("[ARGS]") !== null) {
    return { style: "json", before: (name) => `[TOOL_CALLS]${name}[ARGS]`, after: "" };
  }
  return { ...byName("", ""), open: "[TOOL_CALLS][", close: "]", between: ", " };
}

function layoutOf(format: ToolFormat, tokenizer: Tokenizer): Layout | null {
  if (format === TOOL_FORMATS.mistral) return mistralLayout(tokenizer);
  const named = Object.entries(LAYOUTS).find(([name]) => TOOL_FORMATS[name as ToolFormatName] === format);
  return named?.[1] ?? null;
}

/** @throws UserError for a model that calls no tools, and a tool without a name or with a schema that cannot be held to */
export function toolsGrammar({ tools, parallel = false, optional }: ToolsFormat, tokenizer: Tokenizer): GrammarText {
  const format = tokenizer.toolFormat;
  if (!format) throw usage("this model was not trained to call tools: a call cannot be asked of it");
  if (tools.length === 0) throw usage("there are no tools that could be called");
  const functions = tools.map(functionOf);
  const layout = layoutOf(format, tokenizer);
  const root = optional
    ? amongText(layout, functions, parallel, tokenizer)
    : layout
      ? laidOut(layout, functions, parallel, tokenizer)
      : marked(format, tokenizer);
  return { language: "structural_tag", text: JSON.stringify({ type: "structural_tag", format: root }) };
}

interface Function {
  name: string;
  schema: Schema;
}

function functionOf(tool: unknown, index: number): Function {
  const described = isSchema(tool) && isSchema(tool.function) ? tool.function : tool;
  if (!isSchema(described) || typeof described.name !== "string" || described.name === "") {
    throw usage(`tool ${index + 1} has no name`);
  }
  const { name, parameters = { type: "object" } } = described;
  try {
    return { name, schema: checkedSchema(parameters) };
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    throw new UserError(`the parameters of tool "${name}": ${error.message}`, { code: error.code, hint: error.hint });
  }
}

function laidOut(layout: Layout, functions: readonly Function[], parallel: boolean, tokenizer: Tokenizer): Piece {
  return sequence(piecesOf(layout, functions, parallel, tokenizer));
}

function piecesOf(
  { style, before, after, open = "", close = "", between = "" }: Layout,
  functions: readonly Function[],
  parallel: boolean,
  tokenizer: Tokenizer,
): Piece[] {
  const literal = (text: string) => literals(text, tokenizer);
  const calls = functions.map(({ name, schema }) => [
    ...literal(before(name)),
    { type: "json_schema", json_schema: schema, style },
    ...literal(after),
  ]);
  const call = calls.length === 1 ? calls[0]! : [{ type: "or", elements: calls.map(sequence) }];
  const more: Piece[] = parallel ? [{ type: "star", content: sequence([...literal(between), ...call]) }] : [];
  return [...literal(open), ...call, ...more, ...literal(close)];
}

/** Any text, and calls in it: what begins as one does is held to its layout. */
function amongText(
  layout: Layout | null,
  functions: readonly Function[],
  parallel: boolean,
  tokenizer: Tokenizer,
): Piece {
  const unheld = () =>
    usage("calls in this model's format cannot be held to a schema while text may stand in their place");
  if (!layout) throw unheld();
  // Of a layout without a frame, each call begins so again.
  const written = layout.open
    ? [piecesOf(layout, functions, parallel, tokenizer)]
    : functions.map((one) => piecesOf(layout, [one], false, tokenizer));
  const [first] = written[0]!;
  const tagged = (begin: unknown) => ({
    tags: written.map(([, ...rest]) => ({ type: "tag", begin, content: sequence(rest), end: "" })),
    stop_after_first: !parallel,
  });
  if (first?.type === "const_string")
    return { type: "triggered_tags", triggers: [first.value], ...tagged(first.value) };
  if (first?.type !== "token") throw unheld();
  const exclude_tokens = [...tokenizer.eosTokenIds];
  return { type: "token_triggered_tags", trigger_tokens: [first.token], exclude_tokens, ...tagged(first) };
}

/** Anything between the format's markers. */
function marked({ start, end }: ToolFormat, tokenizer: Tokenizer): Piece {
  const [open, close] = [tokenizer.idOf(start), tokenizer.idOf(end)];
  const stops = [...tokenizer.eosTokenIds];
  if (open !== null && close !== null && end !== "") {
    const token = (id: number) => ({ type: "token", token: id });
    const content = { type: "any_tokens", exclude_tokens: stops };
    return { type: "tag", begin: token(open), content, end: token(close) };
  }
  if (end === "") return sequence([...literals(start, tokenizer), { type: "any_text" }]);
  return { type: "tag", begin: start, content: { type: "any_text" }, end };
}

const sequence = (elements: Piece[]): Piece => (elements.length === 1 ? elements[0]! : { type: "sequence", elements });

/** A text in which markers are tokens, where the vocabulary has them as such. */
function literals(text: string, tokenizer: Tokenizer): Piece[] {
  return text.split(/(<[^<>\n]*>|\[[A-Z_]+\])/).flatMap((part): Piece[] => {
    if (part === "") return [];
    const id = part.length > 1 ? tokenizer.idOf(part) : null;
    return [id === null ? { type: "const_string", value: part } : { type: "token", token: id }];
  });
}

function usage(message: string): UserError {
  return new UserError(message, { code: ExitCode.usage });
}
