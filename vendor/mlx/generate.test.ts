import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { cxxSource, generatedFiles, tsSource } from "./generate";
import { ops } from "./ops";

describe("the op table", () => {
  test("names every op once", () => {
    const names = ops.map((op) => op.name);
    expect(names.filter((name, i) => names.indexOf(name) !== i)).toEqual([]);
  });

  test("is what the committed TypeScript was generated from", async () => {
    const source = tsSource();
    for (const part of ["symbols", "calls"] as const) {
      const committed = await Bun.file(join(import.meta.dir, "../..", generatedFiles[part])).text();
      expect(committed === source[part], `${generatedFiles[part]} is stale: bun run generate`).toBe(true);
    }
  });

  test("gives each op one C function", () => {
    const source = cxxSource();
    for (const op of ops) expect(source.split(`int32_t mlxlm_${op.name}(`).length).toBe(2);
  });
});
