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
