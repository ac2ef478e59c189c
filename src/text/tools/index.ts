/** The tool-call formats by name, and how a checkpoint's own is told from its template or vocabulary. */
import { ExitCode, UserError } from "../../errors";
import { nearest } from "../../nearest";
import { MARKUP_TOKENS } from "../thinking";
import type { ToolFormat } from "./format";
import { functionGemma } from "./function-gemma";
import { gemma4 } from "./gemma4";
import { glm47 } from "./glm47";
import { jsonTools } from "./json-tools";
import { kimiK2 } from "./kimi-k2";
import { kimiK3 } from "./kimi-k3";
import { longcat } from "./longcat";
import { minicpm5 } from "./minicpm5";
import { minimaxM2 } from "./minimax-m2";
import { mistral } from "./mistral";
import { museSpark } from "./muse-spark";
import { pythonic } from "./pythonic";
import { qwen3Coder } from "./qwen3-coder";

export type { CallPiece } from "./call-reader";
export type { ToolCall, ToolFormat } from "./format";

/** By the names that tool_parser_type of tokenizer_config.json knows. */
export const TOOL_FORMATS = {
  function_gemma: functionGemma,
  gemma4,
  glm47,
  json_tools: jsonTools,
  kimi_k2: kimiK2,
  kimi_k3: kimiK3,
  laguna: glm47,
  longcat,
  minicpm5,
  minimax_m2: minimaxM2,
  mistral,
  muse_spark: museSpark,
  pythonic,
  qwen3_coder: qwen3Coder,
} satisfies Record<string, ToolFormat>;

export type ToolFormatName = keyof typeof TOOL_FORMATS;

/** What only this format's chat templates hold, in the order in which mlx-lm looks; every text must be there. */
const TEMPLATE_SIGNS: [name: ToolFormatName, ...texts: string[]][] = [
  ["minimax_m2", "<minimax:tool_call>"],
  ["gemma4", "<|tool_call>", "<tool_call|>"],
  ["function_gemma", "<start_function_call>"],
  ["longcat", "<longcat_tool_call>"],
  ["glm47", "<arg_key>"],
  ["pythonic", "<|tool_list_start|>"],
  ["pythonic", "<|tool_call_start|>"],
  // The line's end is an escape where the template writes a string, else itself.
  ["qwen3_coder", "<tool_call>\\n<function="],
  ["qwen3_coder", "<tool_call>\n<function="],
  ["kimi_k2", "<|tool_calls_section_begin|>"],
  ["minicpm5", '<function name="', '<param name="'],
  ["mistral", "[TOOL_CALLS]"],
  ["muse_spark", "<atem:function_calls>"],
  ["json_tools", "<tool_call>", "tool_call.name"],
];

/** Tokens that stand for a format where the template names none. */
const VOCABULARY_SIGNS: [name: ToolFormatName, ...tokens: string[]][] = [
  ["kimi_k3", ...MARKUP_TOKENS],
  ["pythonic", "<|tool_call_start|>", "<|tool_call_end|>"],
];

/**
 * The format by which a model calls tools, told as mlx-lm does, or null for a model that can't.
 * @param template the chat template, or null where there is none, or several.
 */
export function inferToolFormat(template: string | null, hasToken: (token: string) => boolean): ToolFormatName | null {
  const written = TEMPLATE_SIGNS.find(([, ...texts]) => template && texts.every((text) => template.includes(text)));
  return (written ?? VOCABULARY_SIGNS.find(([, ...tokens]) => tokens.every(hasToken)))?.[0] ?? null;
}

/** @throws UserError for a name that tokenizer_config.json gives and that is no format's. */
export function toolFormat(name: string, owner: string): ToolFormat {
  if (Object.hasOwn(TOOL_FORMATS, name)) return TOOL_FORMATS[name as ToolFormatName];
  const names = Object.keys(TOOL_FORMATS);
  const similar = nearest(name, names);
  throw new UserError(`${owner} calls tools in a format that is not known: tool_parser_type is "${name}".`, {
    code: ExitCode.notFound,
    hint: `Known formats: ${(similar.length > 0 ? similar : names).join(", ")}.`,
  });
}
