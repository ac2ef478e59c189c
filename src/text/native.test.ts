import { expect, test } from "bun:test";
import { join } from "node:path";

// What `bun build --compile` defines for its target.
const targets = [
  ["linux", "x64", "linux-x64-gnu"],
  ["linux", "arm64", "linux-arm64-gnu"],
  ["darwin", "arm64", "darwin-arm64"],
] as const;

test.each(targets)("an executable for %s %s embeds its own library alone", async (platform, arch, name) => {
  const { outputs } = await Bun.build({
    entrypoints: [join(import.meta.dir, "native.ts")],
    target: "bun",
    define: { "process.platform": JSON.stringify(platform), "process.arch": JSON.stringify(arch) },
  });
  const libraries = outputs.filter((output) => output.path.endsWith(".node"));
  expect(libraries).toHaveLength(1);
  expect(libraries[0]!.path).toContain(`tokenizers.${name}`);
});
