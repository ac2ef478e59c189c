/** What begins with a slash: commands to the chat, not to the model. */
import { counted } from "../../counted";
import { ExitCode, UserError } from "../../errors";
import { nearest } from "../../nearest";
import { fromLead } from "../group";
import { columnsOf, wrapped } from "../width";
import type { ChatAnswerer } from "./answerer";
import { type Conversation, readConversation, saveConversation, savedThere } from "./conversation";
import { changed, type Settings, settingIn, settingLines, settingName, settingNames } from "./settings";

/** What commands see and change of a chat. */
export interface CommandedChat {
  readonly answerer: ChatAnswerer;
  readonly conversation: Conversation;
  /** As the user named it. */
  readonly model: string;
  settings: Settings;
  /** Where the conversation was saved or loaded. */
  file: string | null;
  /** Shows lines about the chat, not of it. */
  tell(...lines: string[]): void;
  /** Whether a person says yes. */
  confirmed(question: string): Promise<boolean>;
  /** Goes on with another model. */
  switchTo(name: string): Promise<void>;
  /** Takes the last message back, and what was answered to it. */
  takeBack(): unknown;
  /** Has the last message answered anew. */
  retry(): Promise<void>;
  /** Ends the chat after the present command. */
  leave(): void;
}

const stderr = 2;

/** Summaries that have less room stand below their commands. */
const leastColumns = 24;

interface SlashCommand {
  names: readonly [string, ...string[]];
  /** What may follow, for the help. */
  argument?: string;
  summary: string;
  /** May throw a UserError, which is shown. */
  run(session: CommandedChat, argument: string): void | Promise<void>;
}

const commands: readonly SlashCommand[] = [
  { names: ["/help", "/?"], summary: "this list (also h)", run: (session) => session.tell(...helpLines()) },
  {
    names: ["/system"],
    argument: "[TEXT]",
    summary: 'show the system message, or change it; "" takes it out',
    run: setSystem,
  },
  {
    names: ["/set"],
    argument: "NAME VALUE",
    summary: settingNames.join(", "),
    run(session, argument) {
      const system = /^system(?:\s+(.*))?$/s.exec(argument);
      if (system) return setSystem(session, system[1] ?? "");
      const setting = settingIn(argument);
      if (!setting) throw new UserError("/set needs a name and a value", { hint: "For example /set temp 0.7" });
      const [settings, key] = changed(session.settings, setting.name, setting.value);
      if (key === "thinking" && !session.answerer.thinks) throw new UserError("this model does not think aloud");
      session.settings = settings;
      if (key === "seed") session.answerer.seed(settings.seed);
      session.tell(`${settingName(key)} is ${settings[key]}.`);
    },
  },
  {
    names: ["/model"],
    argument: "[NAME]",
    summary: "show the model, or go on with another one: a folder, a repo, demo",
    async run(session, name) {
      if (name === "") return session.tell(session.model);
      await session.switchTo(name);
      session.tell(`The model is ${session.model}.`);
    },
  },
  {
    names: ["/retry"],
    summary: "answer the last message anew",
    async run(session) {
      if (session.settings.temp === 0) session.tell("At temp 0 the answer is the same each time: /set temp 0.7");
      await session.retry();
    },
  },
  {
    names: ["/undo"],
    summary: "take the last message and its answer back",
    run(session) {
      session.takeBack();
      session.tell("The last message and its answer are taken back.");
    },
  },
  { names: ["/show"], summary: "the model, the settings, how full the context is", run: (session) => show(session) },
  {
    names: ["/save"],
    argument: "FILE",
    summary: "write the conversation to a JSON file",
    async run(session, file) {
      if (file === "") throw new UserError("/save needs a file", { hint: "For example /save fox.json" });
      const { conversation, model } = session;
      const messages = conversation.messages();
      const there = await fromLead(() => savedThere(file));
      if (there !== null && there !== session.file) {
        const replaces = await session.confirmed(`${there} is there already. Replace it?`);
        if (!replaces) return session.tell("Nothing is saved.");
      }
      const path = await fromLead(() => saveConversation(file, model, messages));
      session.file = path;
      session.tell(`${counted(messages.length, "message")} in ${path}`);
    },
  },
  {
    names: ["/load"],
    argument: "FILE",
    summary: "go on with a saved conversation in place of this one",
    async run(session, file) {
      if (file === "") throw new UserError("/load needs a file", { hint: "For example /load fox.json" });
      const { model, messages } = await fromLead(() => readConversation(file));
      session.file = await fromLead(() => savedThere(file));
      const { conversation } = session;
      const before = conversation.system;
      conversation.replace(messages);
      const hasOwn = conversation.system !== null;
      conversation.system ??= before;
      session.answerer.used = null;
      const other = model === session.model ? "" : `, begun with ${model}`;
      session.tell(`${counted(messages.length, "message")} loaded${other}.`);
      if (hasOwn) session.tell("The system message is the file's.");
      else if (before !== null) session.tell("The system message stays: the file has none.");
    },
  },
  {
    names: ["/clear"],
    summary: "forget the conversation, but for the system message (also r)",
    run(session) {
      session.conversation.turns = [];
      session.answerer.forget();
      const stays = session.conversation.system === null ? "" : "; the system message stays";
      // Mlx-lm's words first.
      session.tell(`reset context cleared: the conversation is forgotten${stays}.`);
    },
  },
  {
    names: ["/exit", "/bye", "/quit"],
    summary: "end the chat (also q, exit, Ctrl-D)",
    run: (session) => session.leave(),
  },
];

/** Shows the system message, or changes it. */
function setSystem({ conversation, answerer, tell }: CommandedChat, text: string): void {
  if (text === "") {
    tell(conversation.system ?? "There is no system message.");
    return;
  }
  conversation.system = text === '""' ? null : text;
  answerer.used = null;
  tell(text === '""' ? "The system message is gone." : "The system message is set.");
}

/** What Tab completes. */
export const commandWords: readonly string[] = commands.map(({ names }) => names[0]);

/** What is a command where it is the whole message: mlx-lm's letters, and how people leave other programs. */
const alone: Readonly<Record<string, string>> = {
  ...{ q: "/exit", r: "/clear", h: "/help" },
  ...{ exit: "/exit", quit: "/exit", bye: "/exit", "/": "/help" },
};

/** The command in a message and what follows it, or null for a message to the model, such as one about "/etc/hosts". */
function commandIn(message: string): { name: string; argument: string } | null {
  const text = Object.hasOwn(alone, message.trim()) ? alone[message.trim()]! : message;
  const [, name, argument] = /^(\/(?:[a-z]+|\?))(?:\s+(.*))?$/s.exec(text.trim()) ?? [];
  return name === undefined ? null : { name, argument: (argument ?? "").trim() };
}

/**
 * Carries out the command in a message.
 * @returns false for a message that is none
 * @throws UserError for an unknown command, or one that fails
 */
export async function carryOut(message: string, session: CommandedChat): Promise<boolean> {
  const found = commandIn(message);
  if (!found) return false;
  const command = commands.find(({ names }) => names.includes(found.name));
  if (!command) {
    const [similar] = nearest(found.name, commandWords, 1);
    throw new UserError(`there is no command ${found.name}`, {
      code: ExitCode.usage,
      hint: `${similar ? `Did you mean ${similar}? ` : ""}/help lists them.`,
    });
  }
  await command.run(session, found.argument);
  return true;
}

function helpLines(): string[] {
  const heads = commands.map(({ names, argument }) => [names.join(" "), argument].filter(Boolean).join(" "));
  const width = Math.max(...heads.map((head) => head.length));
  // What `tell` sets before each line counts too.
  const room = columnsOf(stderr) - 2;
  const lines = commands.flatMap(({ summary }, i) => {
    const [first, ...others] = wrapped(summary, Math.max(room - width - 2, leastColumns));
    if (room - width - 2 < leastColumns) return [heads[i]!, ...wrapped(summary, room - 4).map((line) => `    ${line}`)];
    return [`${heads[i]!.padEnd(width)}  ${first}`, ...others.map((line) => " ".repeat(width + 2) + line)];
  });
  return [
    "commands    q exit   r reset   h help",
    "",
    ...lines,
    "",
    'A message of several lines stands between two """, or is pasted. Ctrl-C stops an answer.',
  ];
}

/** null where the template refuses the messages: some do without a question. */
async function countedTokens(answerer: ChatAnswerer, conversation: Conversation, settings: Settings) {
  return answerer.count(conversation.messages(), settings).catch((error) => {
    if (error instanceof UserError) return null;
    throw error;
  });
}

async function show({ answerer, conversation, settings, model, tell }: CommandedChat): Promise<void> {
  const used = answerer.used ?? (await countedTokens(answerer, conversation, settings));
  const limit = answerer.contextLength;
  const tokens = limit === null ? `${used ?? "?"} tokens` : `${used ?? "?"} of ${limit} tokens`;
  const rows: [string, string][] = [
    ["model", model],
    ...settingLines(settings),
    ["system", conversation.system ?? "none"],
    ["messages", `${conversation.turns.length}`],
    ["context", tokens],
  ];
  const width = Math.max(...rows.map(([name]) => name.length));
  tell(...rows.map(([name, value]) => `${name.padEnd(width)}  ${value}`));
}
