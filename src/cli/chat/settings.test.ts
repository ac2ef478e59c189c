import { expect, test } from "bun:test";
import { changed, type Settings, settingIn } from "./settings";

const settings: Settings = {
  ...{ temp: 0, topP: 1, minP: 0, topK: 0, xtcProbability: 0, xtcThreshold: 0.1, seed: 0, maxTokens: 256 },
  thinking: undefined,
};

function set(argument: string) {
  const { name, value } = settingIn(argument)!;
  return changed(settings, name, value)[0];
}

test.each([
  ["temp 0.7", { temp: 0.7 }],
  ["temperature 0.7", { temp: 0.7 }],
  ["parameter temperature 0.7", { temp: 0.7 }],
  ["temp=0.7", { temp: 0.7 }],
  ["temp = 0.7", { temp: 0.7 }],
  ["top_p 0.9", { topP: 0.9 }],
  ["Top_P 0.9", { topP: 0.9 }],
  ["parameter num_predict -1", { maxTokens: -1 }],
  ["think", { thinking: "on" }],
  ["nothink", { thinking: "off" }],
  ["think false", { thinking: "off" }],
] as const)("/set %s", (argument, change) => {
  expect(set(argument)).toEqual({ ...settings, ...change });
});

test.each(["", "temp", "temp=", "=0.7", "parameter", "parameter temp"])("/set %j lacks something", (argument) => {
  expect(settingIn(argument)).toBeNull();
});

test.each([
  ["model demo", "/model"],
  ["parameter num_ctx 4096", "--max-kv-size"],
  ["tmp 1", "Did you mean temp?"],
  ["constructor 1", "There are temp, "],
])("/set %s is refused, and the right word named", (argument, hint) => {
  expect(() => set(argument)).toThrow(expect.objectContaining({ hint: expect.stringContaining(hint) }));
});

test.each([
  ["top-p", "3", "/set top-p must be at most 1, not 3"],
  ["min_p", "2", "/set min-p must be at most 1, not 2"],
  ["xtc-probability", "2", "/set xtc-probability must be at most 1, not 2"],
  ["temp", "-1", "/set temp must be at least 0, not -1"],
  ["max-tokens", "0", "max-tokens must be 1 or more, or -1 for no limit, not 0"],
])("/set %s %s is refused for its range", (name, value, message) => {
  expect(() => changed(settings, name, value)).toThrow(message);
});

test("/set top-p takes 0 to 1", () => {
  expect(changed(settings, "top-p", "1")).toEqual([{ ...settings, topP: 1 }, "topP"]);
});
