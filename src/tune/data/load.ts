/** Datasets in a folder: train.jsonl, valid.jsonl and test.jsonl, each record a text, a chat, or a prompt with its completion. */
import { stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { ExitCode, UserError } from "../../errors";
import type { ChatMessage } from "../../text/chat-template";
import type { Tokenizer } from "../../text/tokenizer";
import type { Dataset, Sample } from "./batches";

export interface DataSettings {
  data: string;
  train: boolean;
  test: boolean;
  mask_prompt: boolean;
  prompt_feature?: string | null;
  completion_feature?: string | null;
  chat_feature?: string | null;
  text_feature?: string | null;
  hf_dataset?: unknown;
}

export interface Datasets {
  train: Dataset;
  valid: Dataset;
  test: Dataset;
}

type Row = Record<string, unknown>;

const hint = 'Records are {"text": …}, {"messages": […]} or {"prompt": …, "completion": …}, one a line.';

/** @throws UserError where a dataset that is needed is missing, or a record cannot be read */
export async function loadDatasets(settings: DataSettings, tokenizer: Tokenizer): Promise<Datasets> {
  const { data, train, test } = settings;
  const facts = await stat(data).catch(() => null);
  if (settings.hf_dataset || !facts?.isDirectory()) {
    throw new UserError(`there is no folder ${data} with data; datasets of the hub cannot be trained on yet`, {
      code: ExitCode.notFound,
      hint: "Name a folder with train.jsonl, valid.jsonl and test.jsonl: --data FOLDER",
    });
  }
  const read = (name: string) => readDataset(join(data, `${name}.jsonl`), settings, tokenizer);
  const empty: Dataset = { length: 0, at: () => ({ tokens: [], offset: 0 }) };
  const sets = {
    train: train ? await read("train") : empty,
    valid: train ? await read("valid") : empty,
    test: test ? await read("test") : empty,
  };
  for (const [wanted, name] of [
    [train, "train"],
    [test, "test"],
  ] as const) {
    if (!wanted || sets[name].length > 0) continue;
    throw new UserError(`${join(data, `${name}.jsonl`)} is missing or empty`, { code: ExitCode.notFound, hint });
  }
  return sets;
}

async function readDataset(path: string, settings: DataSettings, tokenizer: Tokenizer): Promise<Dataset> {
  const file = Bun.file(path);
  if (!(await file.exists())) return { length: 0, at: () => ({ tokens: [], offset: 0 }) };
  const rows = (await file.text())
    .split("\n")
    .map((line, i) => [line.trim(), i + 1] as const)
    .filter(([line]) => line !== "")
    .map(([line, number]) => ({ row: rowOf(line, number, path), place: `${basename(path)}:${number}` }))
    // mlx-lm means to sort by length, and sorts by the number of fields.
    .sort((a, b) => Object.keys(a.row).length - Object.keys(b.row).length);
  const samples: Sample[] = [];
  const encode = rows.length > 0 ? encoder(rows[0]!.row, settings, tokenizer, path) : null;
  for (const { row, place } of rows) samples.push(await encode!(row, place));
  return { length: samples.length, at: (index) => samples[index]! };
}

function rowOf(line: string, number: number, path: string): Row {
  let row: unknown;
  try {
    row = JSON.parse(line);
  } catch (error) {
    throw new UserError(`${path}, line ${number}: this is not JSON: ${(error as Error).message}`, { hint });
  }
  if (typeof row === "object" && row !== null && !Array.isArray(row)) return row as Row;
  throw new UserError(`${path}, line ${number}: a record is an object`, { hint });
}

type Encode = (row: Row, place: string) => Promise<Sample>;

/** How records are encoded, as the first one tells. */
function encoder(first: Row, settings: DataSettings, tokenizer: Tokenizer, path: string): Encode {
  const prompt = settings.prompt_feature ?? "prompt";
  const completion = settings.completion_feature ?? "completion";
  const chat = settings.chat_feature ?? "messages";
  const text = settings.text_feature ?? "text";
  const masked = settings.mask_prompt;
  const textOf = (row: Row, name: string, place: string): string => {
    const value = row[name];
    if (typeof value === "string") return value;
    throw new UserError(`${place}: "${name}" must be a text, not ${JSON.stringify(value) ?? "missing"}`, { hint });
  };
  if (prompt in first && completion in first) {
    return (row, place) => {
      const content = (name: string) => textOf(row, name, place);
      const messages = [
        { role: "user", content: content(prompt) },
        { role: "assistant", content: content(completion) },
      ];
      return encodeChat(tokenizer, messages, row.tools, masked);
    };
  }
  if (chat in first) {
    return (row, place) => {
      const messages = row[chat];
      const sound = Array.isArray(messages) && messages.length > 0 && messages.every((one) => one?.role !== undefined);
      if (sound) return encodeChat(tokenizer, messages as ChatMessage[], row.tools, masked);
      throw new UserError(`${place}: "${chat}" must be a list of messages with roles`, { hint });
    };
  }
  if (!(text in first)) throw new UserError(`${path}: its records are of no known kind`, { hint });
  if (masked) {
    throw new UserError("a dataset of texts has no prompts to mask", {
      code: ExitCode.usage,
      hint: "Leave out --mask-prompt, or take chats or prompts with completions.",
    });
  }
  return async (row, place) => {
    const tokens = await tokenizer.encode(textOf(row, text, place));
    const eos = tokenizer.eosToken === null ? null : tokenizer.idOf(tokenizer.eosToken);
    return { tokens: eos === null || tokens.at(-1) === eos ? tokens : [...tokens, eos], offset: 0 };
  };
}

async function encodeChat(
  tokenizer: Tokenizer,
  messages: ChatMessage[],
  given: unknown,
  masked: boolean,
): Promise<Sample> {
  const tools = Array.isArray(given) ? given : null;
  const tokens = await tokenizer.encodeChat(messages, { tools });
  if (!masked) return { tokens, offset: 0 };
  const addGenerationPrompt = messages.at(-1)!.role === "assistant";
  const prompt = await tokenizer.encodeChat(messages.slice(0, -1), { tools, addGenerationPrompt });
  return { tokens, offset: prompt.length };
}
