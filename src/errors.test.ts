import { expect, test } from "bun:test";
import { isLackOfMemory } from "./errors";

test.each([
  ["[malloc] Unable to allocate 17179869184 bytes.", true],
  ["cudaMallocAsync(&data, size, stream) failed: out of memory", true],
  ["std::bad_alloc", true],
  ["[matmul] Last dimension of first input with shape (1,8) must match second to last dimension", false],
])("%s", (text, lacks) => {
  expect(isLackOfMemory(new Error(text))).toBe(lacks);
});
