import { afterAll, expect, test } from "bun:test";
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { checkSameFiles, filesOf } from "./same-model";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-same-model-test-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const weights = new Uint8Array(3 << 20).map((_, i) => (i * 7919) >> 5);
const first = join(folder, "first");
mkdirSync(join(first, "additional_chat_templates"), { recursive: true });
writeFileSync(join(first, "config.json"), "{}");
writeFileSync(join(first, "chat_template.jinja"), "{{ messages }}");
writeFileSync(join(first, "additional_chat_templates/tool_use.jinja"), "{{ tools }}");
writeFileSync(join(first, "model.safetensors"), weights);
writeFileSync(join(first, "README.md"), "hello");

/** What a third rank has, once something was done to its copy. */
async function changed(change: (copy: string) => void) {
  const copy = mkdtempSync(join(folder, "copy-"));
  cpSync(first, copy, { recursive: true });
  change(copy);
  return [await filesOf(first), await filesOf(first), await filesOf(copy)];
}

const replaced = (name: string, content: string | Uint8Array) => (copy: string) =>
  writeFileSync(join(copy, name), content);

test.each([
  ["config.json", "{ }", "rank 2 has another config.json"],
  ["chat_template.jinja", "{{ MESSAGES }}", "rank 2 has another chat_template.jinja"],
  ["additional_chat_templates/tool_use.jinja", "{{ TOOLS }}", "rank 2 has another additional_chat_templates/tool_use"],
  ["model.safetensors", weights.slice(1), "rank 2 has another model.safetensors"],
  ["model.safetensors", weights.toReversed(), "rank 2 has another model.safetensors"],
  ["model-2.safetensors", weights, "rank 2 also has model-2.safetensors"],
] as const)("another %s is refused by the rank and the file", async (name, content, message) => {
  const files = await changed(replaced(name, content));
  expect(() => checkSameFiles(files)).toThrow(message);
});

test("a file that is missing is refused", async () => {
  const files = await changed((copy) => rmSync(join(copy, "model.safetensors")));
  expect(() => checkSameFiles(files)).toThrow("rank 2 lacks model.safetensors");
});

test("the same model is not, whatever else lies beside it", async () => {
  const files = await changed(replaced("README.md", "another"));
  expect(() => checkSameFiles(files)).not.toThrow();
});

test("of what a rank has not downloaded the size is compared, of the others' all", async () => {
  const [whole, , other] = await changed(replaced("model.safetensors", weights.toReversed()));
  const absent = { ...whole!, "model.safetensors": { bytes: weights.length } };
  expect(() => checkSameFiles([absent, whole!, absent])).not.toThrow();
  expect(() => checkSameFiles([absent, whole!, other!])).toThrow("rank 2 has another model.safetensors");
  expect(() => checkSameFiles([whole!, { ...absent, "model.safetensors": { bytes: 5 } }])).toThrow(
    "rank 1 has another model.safetensors",
  );
});
