/** Prompts on two ranks: the first one's, whatever the other's clock says. */
import { afterAll, expect, test } from "bun:test";
import { cpSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { demoFolder } from "../../src/demo/folder";
import { startRanks } from "./ranks";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-ranks-prompts-"));
afterAll(() => rmSync(folder, { recursive: true }));
for (const rank of [0, 1]) mkdirSync(join(folder, `rank${rank}`));

const path = join(folder, "telling-time");
cpSync(demoFolder(), path, { recursive: true });
const writeTemplate = (text: string) => writeFileSync(join(path, "chat_template.jinja"), text);

/** Their clocks are 23 hours apart. */
const ownEnv = [{ TZ: "Etc/GMT-12" }, { TZ: "Etc/GMT+11" }];
const hours = () => (new Date().getUTCHours() + 12) % 24;

const run = async (words: readonly string[], stdin?: string) =>
  await Promise.all(
    startRanks("command-rank.ts", 2, { args: [folder, ...words, "--model", path], ownEnv, stdin }).map(
      ({ ended }) => ended,
    ),
  );

test.each([
  ["generate", ["generate", "--prompt", "?"], undefined],
  ["chat", ["chat"], "?\n"],
])("a template that tells the time: %s", async (_, words, stdin) => {
  writeTemplate("<|im_start|>user\nWhat is {{ strftime_now('%H')|int + 20 }} + 30?<|im_end|>\n<|im_start|>assistant\n");
  const early = hours();
  const [lead, other] = await run([...words, "--temp", "0"], stdin);
  expect(lead!.stdout).toMatch(new RegExp(`= (${early + 50}|${hours() + 50})\\.`));
  expect([lead!.code, other!.code]).toEqual([0, 0]);
});

test("a template that refuses the messages is an error of both", async () => {
  writeTemplate("{{ raise_exception('no questions today') }}");
  const ends = await run(["generate", "--prompt", "?"]);
  expect(ends.map(({ code }) => code)).toEqual([1, 1]);
  expect(ends[1]!.stderr).toContain("mlxlm: rank 0: ");
  for (const { stderr } of ends) expect(stderr).toContain("no questions today");

  // The chat goes on: what cannot be answered, or read, is said once, and is the end's code.
  const [lead, other] = await run(["chat"], "one\n/load /nowhere\n/save talk.json\n");
  expect(lead!.stderr.match(/no questions today|there is no file/g)).toEqual([
    "no questions today",
    "there is no file",
  ]);
  expect([lead!.code, other!.code, other!.stderr]).toEqual([3, 0, ""]);
  expect([0, 1].map((rank) => existsSync(join(folder, `rank${rank}`, "talk.json")))).toEqual([true, false]);
});
