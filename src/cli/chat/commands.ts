/** What begins with a slash: commands to the chat, not to the model. */
import { ExitCode, UserError } from "../../errors";
import { nearest } from "../../nearest";
import type { ChatAnswerer } from "./answerer";
import { type Conversation, readConversation, saveConversation } from "./conversation";
import { changed, type Settings, settingLines, settingNames } from "./settings";

/** What commands see and change of a chat. */
export interface CommandedChat {
  readonly answerer: ChatAnswerer;
  readonly conversation: Conversation;
  /** As the user named it. */
  readonly model: string;
  settings: Settings;
  /** Shows lines about the chat, not of it. */
  tell(...lines: string[]): void;
  /** Ends the chat after the present command. */
  leave(): void;
}

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
    run(session, text) {
      if (text === "") return session.tell(session.conversation.system ?? "There is no system message.");
      session.conversation.system = text === '""' ? null : text;
      session.tell(text === '""' ? "The system message is gone." : "The system message is set.");
    },
  },
  {
    names: ["/set"],
    argument: "NAME VALUE",
    summary: settingNames.join(", "),
    run(session, argument) {
      const [, name, value] = /^(\S+)\s+(.*)$/s.exec(argument) ?? [];
      if (!name || !value) throw new UserError("/set needs a name and a value", { hint: "For example /set temp 0.7" });
      const [settings, key] = changed(session.settings, name, value);
      if (key === "thinking" && !session.answerer.thinks) throw new UserError("this model does not think aloud");
      session.settings = settings;
      if (key === "seed") session.answerer.seed(settings.seed);
      session.tell(`${name} is ${settings[key]}.`);
    },
  },
  { names: ["/show"], summary: "the model, the settings, how full the context is", run: (session) => show(session) },
  {
    names: ["/save"],
    argument: "FILE",
    summary: "write the conversation to a JSON file",
    async run({ conversation, model, tell }, file) {
      if (file === "") throw new UserError("/save needs a file", { hint: "For example /save fox.json" });
      const messages = conversation.messages();
      const path = await saveConversation(file, model, messages);
      tell(`${counted(messages.length, "message")} in ${path}`);
    },
  },
  {
    names: ["/load"],
    argument: "FILE",
    summary: "go on with a saved conversation in place of this one",
    async run(session, file) {
      if (file === "") throw new UserError("/load needs a file", { hint: "For example /load fox.json" });
      const { model, messages } = await readConversation(file);
      session.conversation.replace(messages);
      session.answerer.used = null;
      const other = model === session.model ? "" : `, begun with ${model}`;
      session.tell(`${counted(messages.length, "message")} loaded${other}.`);
    },
  },
  {
    names: ["/clear"],
    summary: "forget the conversation, but for the system message (also r)",
    run(session) {
      session.conversation.turns = [];
      session.answerer.forget();
      session.tell("reset context cleared");
    },
  },
  { names: ["/exit", "/bye", "/quit"], summary: "end the chat (also q, Ctrl-D)", run: (session) => session.leave() },
];

/** What Tab completes. */
export const commandWords: readonly string[] = commands.map(({ names }) => names[0]);

/** mlx-lm's one-letter commands. */
const letters: Record<string, string> = { q: "/exit", r: "/clear", h: "/help" };

/** The command in a message and what follows it, or null for a message to the model, such as one about "/etc/hosts". */
function commandIn(message: string): { name: string; argument: string } | null {
  const text = Object.hasOwn(letters, message) ? letters[message]! : message;
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
  return [
    "commands    q exit   r reset   h help",
    "",
    ...commands.map(({ summary }, i) => `${heads[i]!.padEnd(width)}  ${summary}`),
    "",
    'A message of several lines stands between two """, or is pasted. Ctrl-C stops an answer.',
  ];
}

function show({ answerer, conversation, settings, model, tell }: CommandedChat): void {
  const { used, contextLength } = answerer;
  const tokens = [used === null ? null : `${used}`, contextLength === null ? null : `${contextLength}`];
  const rows: [string, string][] = [
    ["model", model],
    ...settingLines(settings),
    ["system", conversation.system ?? "none"],
    ["messages", `${conversation.turns.length}`],
    ["context", `${tokens.filter(Boolean).join(" of ") || "0"} tokens`],
  ];
  const width = Math.max(...rows.map(([name]) => name.length));
  tell(...rows.map(([name, value]) => `${name.padEnd(width)}  ${value}`));
}

const counted = (count: number, what: string) => `${count} ${what}${count === 1 ? "" : "s"}`;
