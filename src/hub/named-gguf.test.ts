import { afterAll, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { nameGgufFile } from "../cli/gguf-file";
import { ExitCode } from "../errors";
import { ggufFileOf } from "./named-gguf";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-named-"));
afterAll(() => rmSync(folder, { recursive: true }));

mkdirSync(join(folder, "UD"));
for (const name of ["m-Q4_K_M.gguf", "m-Q8_0.gguf", "UD/m-Q6_K-00001-of-00002.gguf", "UD/m-Q6_K-00002-of-00002.gguf"]) {
  writeFileSync(join(folder, name), "GGUF");
}

test("a file of a folder or a repo, by its quantization or its name", async () => {
  expect(await ggufFileOf(folder, "q8_0")).toBe(join(folder, "m-Q8_0.gguf"));
  expect(await ggufFileOf(folder, "m-Q4_K_M.gguf")).toBe(join(folder, "m-Q4_K_M.gguf"));
  expect(await ggufFileOf(folder, "Q6_K")).toBe(join(folder, "UD/m-Q6_K-00001-of-00002.gguf"));
  expect(await ggufFileOf("owner/name-GGUF", "Q4_K_M")).toBe("hf:owner/name-GGUF:Q4_K_M");
});

test("a file that is not there, or is named twice, is refused", async () => {
  await expect(ggufFileOf(folder, "Q2_K")).rejects.toThrow("has no Q2_K");
  await expect(ggufFileOf(join(folder, "m-Q8_0.gguf"), "Q8_0")).rejects.toThrow("is one file already");
  await expect(ggufFileOf("hf:owner/name:Q8_0", "Q8_0")).rejects.toThrow("is one file already");
});

test("the flag changes the flag of the model", async () => {
  const flags: Record<string, unknown> = { model: folder, ggufFile: "Q8_0" };
  await nameGgufFile(flags);
  expect(flags.model).toBe(join(folder, "m-Q8_0.gguf"));
  const converted: Record<string, unknown> = { hfPath: "owner/name", ggufFile: "Q8_0" };
  await nameGgufFile(converted);
  expect(converted.hfPath).toBe("hf:owner/name:Q8_0");
  const without: Record<string, unknown> = { model: folder };
  await nameGgufFile(without);
  expect(without).toEqual({ model: folder });
  await expect(nameGgufFile({ ggufFile: "Q8_0" })).rejects.toMatchObject({ options: { code: ExitCode.usage } });
});
