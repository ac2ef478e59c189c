/** From a row to what a model is asked: its prompt with examples before it, its choices behind. */
import { textOf } from "./fields";
import { type ChatTurn, chatOf, plainText, type Turn, turnsOf } from "./prompt";
import type { Request } from "./request";
import type { TaskConfig } from "./task-config";
import { checkText, type TaskParts } from "./task-parts";
import type { Doc } from "./task-template";

/** A chat as one text; `begun`: its last turn goes on. */
export type RenderChat = (chat: ChatTurn[], begun: boolean) => string;

export interface PromptOptions {
  /** Lays prompts out as chats. */
  renderChat?: RenderChat;
  /** Examples as turns of their own. */
  asMultiturn: boolean;
}

/** The requests of a row. Draws examples. @throws UserError for a row that does not fit */
export function requestsOf(parts: TaskParts, doc: Doc, options: PromptOptions): Request[] {
  const { own, config, owner, type, metrics } = parts;
  const context = contexts(parts, doc, options);
  const ask = (context: string, continuation: string): Request => ({ type: "loglikelihood", context, continuation });
  switch (type) {
    case "loglikelihood":
      return [ask(context as string, checkText(own.target(doc), "doc_to_target", owner))];
    case "loglikelihood_rolling":
      return [{ type: "loglikelihood_rolling", text: checkText(own.target(doc), "doc_to_target", owner) }];
    case "generate_until":
      return [{ type: "generate_until", context: context as string, options: generationOptions(config) }];
    case "multiple_choice": {
      const keeps = !options.renderChat || (config.gen_prefix && !/\s$/.test(config.gen_prefix));
      const delimiter = keeps ? own.targetDelimiter : "";
      const choices = own.choices!(doc);
      const requests = Array.isArray(context)
        ? context.map((one) => ask(one, delimiter + textOf(own.target(doc))))
        : choices.map((choice) => ask(context, delimiter + choice));
      if (!metrics.some(({ name }) => name === "acc_mutual_info")) return requests;
      return [...requests, ...choices.map((choice) => ask("", delimiter + choice))];
    }
  }
}

/** The prompt of a row; several where its choices stand in the question. Draws examples. */
function contexts(parts: TaskParts, doc: Doc, { renderChat, asMultiturn }: PromptOptions): string | string[] {
  const { own, sampler, description, config, owner, numFewshot, hasManyInputs } = parts;
  const turns: Turn[] = [];
  const system = description(doc);
  if (system !== "") turns.push({ role: "system", content: system, delimiter: "" });
  if (numFewshot > 0) {
    // As in the harness, where neither a split for examples nor a test split is named they are the same.
    const split = config.fewshot_config?.split ?? config.fewshot_split;
    const asked = split === config.test_split ? doc : null;
    for (const example of sampler(numFewshot, asked)) turns.push(...exampleTurns(parts, example));
  }
  const genPrefix = own.genPrefix(doc);
  const render = (last: Turn[]) => {
    const whole = [...turns, ...last];
    return renderChat ? renderChat(chatOf(whole, asMultiturn), genPrefix !== "") : plainText(whole);
  };
  const { targetDelimiter } = own;
  if (hasManyInputs) {
    const choices = own.choices!(doc);
    return choices.map((question) =>
      render(turnsOf({ question, genPrefix, targetDelimiter: "", fewshotDelimiter: "" })),
    );
  }
  const question = checkText(own.question(doc), "doc_to_text", owner);
  return render(turnsOf({ question, genPrefix, targetDelimiter, fewshotDelimiter: "" }));
}

function exampleTurns({ examples: reading, owner, hasManyInputs }: TaskParts, doc: Doc): Turn[] {
  const { question: read, target, choices: list, targetDelimiter, fewshotDelimiter } = reading;
  const choices = list?.(doc) ?? null;
  const asked = read(doc);
  const genPrefix = reading.genPrefix(doc);
  const shared = { genPrefix, targetDelimiter, fewshotDelimiter };
  if (hasManyInputs) {
    const question = checkText(choices?.[Number(asked)], "doc_to_text", owner);
    return turnsOf({ question, answer: answerText(target(doc), null, owner), ...shared });
  }
  return turnsOf({
    question: checkText(asked, "doc_to_text", owner),
    answer: answerText(target(doc), choices, owner),
    ...shared,
  });
}

function answerText(target: unknown, choices: readonly string[] | null, owner: string): string | undefined {
  if (target === null || target === undefined || target === "") return undefined;
  if (choices && (typeof target === "number" || typeof target === "boolean")) {
    return checkText(choices.at(Number(target)), "doc_to_target", owner);
  }
  return checkText(Array.isArray(target) ? target[0] : target, "doc_to_target", owner);
}

const generationDefaults = { temperature: 0, do_sample: false, max_gen_toks: 256 };

function generationOptions({ generation_kwargs: given, fewshot_delimiter: delimiter = "\n\n" }: TaskConfig) {
  return { ...(given ?? generationDefaults), ...(given?.until === undefined && { until: [delimiter] }) };
}
