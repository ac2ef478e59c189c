import { afterAll, describe, expect, test } from "bun:test";
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Conversation, type Message, readConversation, saveConversation } from "./conversation";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-conversation-"));
afterAll(() => rmSync(folder, { recursive: true }));

let count = 0;
function file(content?: string | Buffer): string {
  const path = join(folder, `${count++}.json`);
  if (content !== undefined) writeFileSync(path, content);
  return path;
}

const messages: Message[] = [
  { role: "system", content: "Be a fox." },
  { role: "user", content: 'Über "日本"\n\x1b[2J\u2028' },
  { role: "assistant", content: "", reasoning_content: "Hm." },
];

describe("saving and loading", () => {
  test("gives the same messages back, from a file of the user's own", async () => {
    const path = file();
    expect(await saveConversation(path, "demo", messages)).toBe(path);
    expect(await readConversation(path)).toMatchObject({ model: "demo", messages });
    expect(statSync(path).mode & 0o777).toBe(0o600);
    await saveConversation(path, "demo", messages.slice(1));
    expect((await readConversation(path)).messages).toEqual(messages.slice(1));
    expect(readdirSync(folder).filter((name) => name.endsWith(".tmp"))).toEqual([]);
  });

  test("a link stays one", async () => {
    const path = file();
    await saveConversation(path, "demo", []);
    const link = join(folder, "link.json");
    symlinkSync(path, link);
    await saveConversation(link, "demo", messages);
    expect((await readConversation(path)).messages).toEqual(messages);
  });

  test("the home folder has its short name", async () => {
    await expect(readConversation("~/no such mlxlm file.json")).rejects.toThrow(process.env.HOME!);
  });

  test("another file is not written over", async () => {
    const path = file("export PATH\n");
    await expect(saveConversation(path, "demo", messages)).rejects.toThrow(
      /is there already and is no saved conversation/,
    );
    expect(readFileSync(path, "utf8")).toBe("export PATH\n");
    await expect(saveConversation(folder, "demo", messages)).rejects.toThrow(/is there already/);
  });

  test("no folder, or one that cannot be written", async () => {
    await expect(saveConversation(join(folder, "nowhere/x.json"), "demo", [])).rejects.toThrow(/there is no folder/);
    await expect(saveConversation(join(file("x"), "x.json"), "demo", [])).rejects.toThrow(/cannot be written/);
  });
});

describe("a file that is no conversation is refused, with the reason", () => {
  const with_ = (changes: object) =>
    JSON.stringify({ format: "mlxlm chat", version: 1, model: "m", messages: [], ...changes });
  test.each([
    ["", /it is empty/],
    ["{", /it is not JSON/],
    [Buffer.from([0xff, 0xd8, 0, 1]), /it is not JSON/],
    ["[".repeat(200_000), /it is not JSON/],
    ["[]", /expected object/],
    ["null", /expected object/],
    ["{}", /"format"/],
    [with_({ format: "other" }), /"format"/],
    [with_({ version: 2 }), /"version"/],
    [with_({ messages: {} }), /"messages"/],
    [with_({ messages: [{ role: "tool", content: "" }] }), /"messages.0.role"/],
    [with_({ messages: [{ role: "user", content: ["a"] }] }), /"messages.0.content"/],
    [
      with_({
        messages: [
          { role: "user", content: "a" },
          { role: "system", content: "b" },
        ],
      }),
      /only be the first/,
    ],
    [with_({ messages: [{ role: "user", content: "a", reasoning_content: 1 }] }), /reasoning_content/],
  ])("%#", async (content, reason) => {
    await expect(readConversation(file(content))).rejects.toThrow(reason);
  });

  test("a folder, a file that is missing, one that is too large", async () => {
    await expect(readConversation(folder)).rejects.toThrow(/it is no file/);
    await expect(readConversation(join(folder, "nowhere"))).rejects.toThrow(/there is no file/);
    const large = file("");
    truncateSync(large, 100 * 2 ** 20);
    await expect(readConversation(large)).rejects.toThrow(/it has 104857600 bytes/);
  });

  test("fields of later versions are passed over, also a prototype's", async () => {
    const path = file(
      `{"format":"mlxlm chat","version":1,"model":"m","messages":[],"more":1,"__proto__":{"system":"x"}}`,
    );
    expect(Object.keys(await readConversation(path)).sort()).toEqual(["format", "messages", "model", "version"]);
  });
});

test("a conversation takes over messages with and without a system message", () => {
  const conversation = new Conversation();
  conversation.replace(messages);
  expect([conversation.system, conversation.turns.length, conversation.messages()]).toEqual(["Be a fox.", 2, messages]);
  conversation.replace(messages.slice(1));
  expect([conversation.system, conversation.messages()]).toEqual([null, messages.slice(1)]);
  conversation.replace([]);
  expect(conversation.messages()).toEqual([]);
});
