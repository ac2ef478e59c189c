import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import type { ChatMessage } from "./chat-template";
import { renderDeepseekV32, Unfit } from "./deepseek-v32";

interface Chat {
  messages: ChatMessage[];
  tools: unknown[] | null;
  enable_thinking: boolean;
  add_generation_prompt: boolean;
  continue_final_message: boolean;
  /** Null where mlx-lm raises. */
  text: string | null;
}
const path = join(import.meta.dir, "../../test/fixtures/text/deepseek-v32.json");
const { chats }: { chats: Chat[] } = await Bun.file(path).json();

const render = (chat: Chat) =>
  renderDeepseekV32(chat.messages, {
    tools: chat.tools,
    addGenerationPrompt: chat.add_generation_prompt,
    continueFinalMessage: chat.continue_final_message,
    kwargs: { enable_thinking: chat.enable_thinking },
  });

describe("as mlx-lm renders it", () => {
  test.each(chats.map((chat, i) => [i, chat] as const))("chat %d", (_, chat) => {
    if (chat.text === null) expect(() => render(chat)).toThrow(Unfit);
    else expect(render(chat)).toBe(chat.text);
  });
});

test("arguments may be an object, and content text in parts", () => {
  const call = (args: unknown): ChatMessage[] => [
    {
      role: "user",
      content: [
        { type: "text", text: "a" },
        { type: "text", text: "b" },
      ],
    },
    { role: "assistant", tool_calls: [{ function: { name: "f", arguments: args } }] },
  ];
  expect(renderDeepseekV32(call({ x: 1 }))).toBe(renderDeepseekV32(call('{"x": 1}')));
  expect(renderDeepseekV32(call({}))).toContain("<｜User｜>ab<｜Assistant｜>");
  expect(() => renderDeepseekV32(call("[1]"))).toThrow("not a JSON object");
  expect(() => renderDeepseekV32([{ role: "user", content: [{ type: "image" }] }])).toThrow("not text alone");
});
