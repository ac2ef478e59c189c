/** What shapes an answer and can be changed between two: flags of the command, `/set` in a chat. */
import { ExitCode, UserError } from "../../errors";
import { nearest } from "../../nearest";
import { flag, spelled, type Values } from "../flags";
import { parseFlags } from "../parse";

/** The flags that are settings too, with mlx-lm's defaults. */
export const settingFlags = {
  temp: flag.number("temperature; 0 always takes the most likely token", { default: 0, min: 0 }),
  topP: flag.number("keep the likeliest tokens that have this probability together", { default: 1, min: 0 }),
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

/** As `/set` and `/show` write them. */
export const settingNames = Object.keys(table).map((name) => spelled(name).slice(2));

/** The lines of `/show`. */
export function settingLines(settings: Settings): [name: string, value: string][] {
  return Object.keys(table).flatMap((key) => {
    const value = settings[key as keyof Settings];
    return value === undefined ? [] : [[spelled(key).slice(2), String(value)] as [string, string]];
  });
}

/**
 * The settings with one of them changed, by the rules that hold for the flag.
 * @returns the changed settings, and which one it was
 * @throws UserError (usage) for an unknown name or a value out of bounds
 */
export function changed(settings: Settings, typed: string, value: string): [Settings, keyof Settings] {
  const name = typed.replaceAll("_", "-");
  const key = Object.keys(table).find((one) => spelled(one) === `--${name}`) as keyof Settings | undefined;
  if (!key) {
    const [similar] = nearest(name, settingNames, 1);
    throw new UserError(`there is no setting "${typed}"`, {
      code: ExitCode.usage,
      hint: similar ? `Did you mean ${similar}?` : `There are ${settingNames.join(", ")}.`,
    });
  }
  const given = key === "thinking" ? (truths[value.toLowerCase()] ?? value) : value;
  const result = { ...settings, [key]: parsedValue(key, name, given) };
  checkSettings(result);
  return [result, key];
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
export function checkSettings({ maxTokens }: Pick<Settings, "maxTokens">): void {
  if (maxTokens === 0) {
    throw new UserError("max-tokens must be 1 or more, or -1 for no limit, not 0", { code: ExitCode.usage });
  }
}
