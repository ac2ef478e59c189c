/** What shapes an answer and can be changed between two: flags of the command, `/set` in a chat. */
import { ExitCode, UserError } from "../../errors";
import { nearest } from "../../nearest";
import { flag, spelled, type Values } from "../flags";
import { parseFlags } from "../parse";
import { flagMeaning } from "../synonyms";

/** The flags that are settings too, with mlx-lm's defaults. */
export const settingFlags = {
  temp: flag.number("temperature; 0 always takes the most likely token", { default: 0, min: 0 }),
  topP: flag.number("keep the likeliest tokens that have this probability together", { default: 1, min: 0, max: 1 }),
  minP: flag.number("drop tokens below this share of the likeliest one", { default: 0, min: 0, max: 1 }),
  topK: flag.integer("keep so many of the likeliest tokens; 0 or less: all", { default: 0 }),
  xtcProbability: flag.number("how often XTC drops the likeliest tokens", { default: 0, min: 0, max: 1 }),
  xtcThreshold: flag.number("from which probability XTC counts a token as likely", { default: 0.1, min: 0, max: 0.5 }),
  seed: flag.integer("seed of the random numbers", { default: 0, min: 0 }),
  maxTokens: flag.integer("generate at most so many tokens an answer; -1: no limit", {
    alias: ["m"],
    default: 256,
    min: -1,
  }),
};

/** Settings of a chat alone. */
const chatOnly = {
  thinking: flag.choice("whether the model thinks before it answers", ["on", "off"]),
};

const table = { ...settingFlags, ...chatOnly };

export type Settings = Values<typeof table>;

/** A setting as `/set` and `/show` write it. */
export const settingName = (key: string) => spelled(key).slice(2);

export const settingNames = Object.keys(table).map(settingName);

/** The lines of `/show`. */
export function settingLines(settings: Settings): [name: string, value: string][] {
  return Object.keys(table).flatMap((key) => {
    const value = settings[key as keyof Settings];
    return value === undefined ? [] : [[settingName(key), String(value)] as [string, string]];
  });
}

/**
 * The settings with one of them changed, by the rules that hold for the flag.
 * @returns the changed settings, and which one it was
 * @throws UserError (usage) for an unknown name or a value out of bounds
 */
export function changed(settings: Settings, typed: string, value: string): [Settings, keyof Settings] {
  const name = typed.toLowerCase().replaceAll("_", "-");
  const spellings = settingNames.map((one) => `--${one}`);
  const spelling = spellings.includes(`--${name}`) ? `--${name}` : flagMeaning(`--${name}`, spellings);
  const key = Object.keys(table).find((one) => spelled(one) === spelling) as keyof Settings | undefined;
  if (!key) throw unknownSetting(typed, name);
  const given = key === "thinking" ? (truths[value.toLowerCase()] ?? value) : value;
  const result = { ...settings, [key]: parsedValue(key, settingName(key), given) };
  checkSettings(result, "max-tokens");
  return [result, key];
}

/** What other chats set, and how it is had here. */
const elsewhere: Readonly<Record<string, string>> = {
  model: "It is /model NAME.",
  "num-ctx": "It is a flag: mlxlm chat --max-kv-size N keeps so many tokens.",
  "ctx-size": "It is a flag: mlxlm chat --max-kv-size N keeps so many tokens.",
  "max-kv-size": "It is a flag: mlxlm chat --max-kv-size N keeps so many tokens.",
  verbose: "Speed and memory stand below every answer.",
};

function unknownSetting(typed: string, name: string): UserError {
  const [similar] = nearest(name, settingNames, 1);
  const guess = similar ? `Did you mean ${similar}?` : `There are ${settingNames.join(", ")}.`;
  return new UserError(`there is no setting "${typed}"`, {
    code: ExitCode.usage,
    hint: Object.hasOwn(elsewhere, name) ? elsewhere[name] : guess,
  });
}

/**
 * Name and value in what follows `/set`, also as other chats write it: `parameter temperature 0.7`, `temp=0.7`, `nothink`.
 * @returns null where one of them is missing
 */
export function settingIn(argument: string): { name: string; value: string } | null {
  const wish = argument.replace(/^parameter\s+/i, "");
  if (/^(no)?think$/i.test(wish)) return { name: "thinking", value: /^no/i.test(wish) ? "off" : "on" };
  const [, name, value] = /^([^\s=]+)(?:\s*=\s*|\s+)(.+)$/s.exec(wish) ?? [];
  return name && value ? { name: name === "think" ? "thinking" : name, value } : null;
}

/** What people write for on and off. */
const truths: Readonly<Record<string, string>> = {
  ...{ true: "on", yes: "on", "1": "on", on: "on" },
  ...{ false: "off", no: "off", "0": "off", off: "off" },
};

/** @throws UserError in the words of a chat: nobody typed a flag */
function parsedValue(key: keyof Settings, name: string, value: string): unknown {
  try {
    return parseFlags([`${spelled(key)}=${value}`], table, "chat")[key];
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    throw new UserError(error.message.replace(spelled(key), `/set ${name}`), {
      code: ExitCode.usage,
      hint: "/show lists the settings as they are.",
    });
  }
}

/** @throws UserError (usage) for what no range of one flag rules out */
export function checkSettings({ maxTokens }: Pick<Settings, "maxTokens">, name = "--max-tokens"): void {
  if (maxTokens === 0) {
    throw new UserError(`${name} must be 1 or more, or -1 for no limit, not 0`, { code: ExitCode.usage });
  }
}
