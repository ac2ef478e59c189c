import { expect, test } from "bun:test";
import { checkPromptLength, pipedText } from "./piped";

test("text of several parts is one, letters that a part cuts too", async () => {
  const bytes = new TextEncoder().encode("füchse 狐");
  const stream = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const byte of bytes) controller.enqueue(Uint8Array.of(byte));
      controller.close();
    },
  });
  expect(await pipedText(100, undefined, stream)).toBe("füchse 狐");
});

test("a stream without end is left as soon as it is too long", async () => {
  let parts = 0;
  const stream = new ReadableStream<Uint8Array>({
    pull(controller) {
      parts++;
      controller.enqueue(new Uint8Array(10_000).fill(121));
    },
  });
  await expect(pipedText(1000, undefined, stream)).rejects.toThrow("the model takes 1000 tokens");
  expect(parts).toBeLessThan(40);
});

test("what may fit is left to the tokenizer", () => {
  checkPromptLength(1024 * 256, 1024);
  expect(() => checkPromptLength(1024 * 256 + 1, 1024)).toThrow("the prompt has 0.3 MB or more");
  expect(() => checkPromptLength(2 ** 31, null)).toThrow("bytes at most");
});

test("a prompt that needs more memory than is free is refused", () => {
  checkPromptLength(4_000_000, 131_072, 1e9);
  expect(() => checkPromptLength(30_000_000, 131_072, 1e9)).toThrow(
    "a prompt of 30.0 MB would need 6.6 GB of memory, and 1.0 GB are free",
  );
});
