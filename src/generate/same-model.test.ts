import { expect, test } from "bun:test";
import { checkSameFiles } from "./same-model";

const files = { "config.json": "c0ffee", "model.safetensors": "120 bytes" };

test.each([
  [{ ...files, "config.json": "beef" }, "rank 2 has another config.json"],
  [{ ...files, "model.safetensors": "121 bytes" }, "rank 2 has another model.safetensors"],
  [{ "config.json": "c0ffee" }, "rank 2 lacks model.safetensors"],
  [{ ...files, "model-2.safetensors": "1 bytes" }, "rank 2 also has model-2.safetensors"],
])("another model is refused by the rank and the file: %j", (other, message) => {
  expect(() => checkSameFiles([files, { ...files }, other as typeof files])).toThrow(message);
});

test("the same model is not", () => {
  expect(() => checkSameFiles([files, { ...files }])).not.toThrow();
});
