/** `--mlx-prefix` with folders that are no MLX: a line that says what is missing, before anything is built. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-own-"));
afterAll(() => rmSync(folder, { recursive: true }));

function build(prefix: string) {
  const script = join(import.meta.dir, "../../build.ts");
  const { exitCode, stderr } = Bun.spawnSync([process.execPath, script, "--mlx-prefix", prefix]);
  return { exitCode, said: stderr.toString().trim() };
}

function made(name: string, parts: readonly string[]): string {
  for (const part of parts) mkdirSync(join(folder, name, part), { recursive: true });
  return join(folder, name);
}

describe("--mlx-prefix", () => {
  test("a folder that is not there", () => {
    const { exitCode, said } = build(join(folder, "nowhere"));
    expect(exitCode).toBe(1);
    expect(said).toBe(`build: --mlx-prefix: there is no folder ${join(folder, "nowhere")}`);
  });

  test.each([
    [["lib"], "has no include/mlx, share/cmake/MLX"],
    [["include/mlx", "share/cmake/MLX"], "has no lib:"],
    [["lib", "include/mlx", "share/cmake/MLX"], "has no libmlx.so or libmlx.dylib"],
  ])("a folder with %j alone", (parts, words) => {
    const { exitCode, said } = build(made(parts.join("-").replaceAll("/", "."), parts));
    expect(exitCode).toBe(1);
    expect(said).toContain(words);
    expect(said.split("\n").length).toBe(1);
  });
});

test.skipIf(process.platform !== "linux")("a library that is nowhere is named", () => {
  const prefix = made("lone", ["lib", "include/mlx", "share/cmake/MLX"]);
  const source = join(folder, "empty.c");
  writeFileSync(source, "int gone(void) { return 0; }\n");
  const cc = (...words: string[]) => expect(Bun.spawnSync(["cc", "-shared", "-fPIC", ...words]).exitCode).toBe(0);
  cc(source, "-o", join(folder, "libgone.so"));
  cc(source, "-o", join(prefix, "lib/libmlx.so"), "-Wl,--no-as-needed", `-L${folder}`, "-lgone");
  const script = `
    import { companionsOf } from "${join(import.meta.dir, "own-mlx.ts")}";
    console.log(companionsOf(...process.argv.slice(1)).join());
  `;
  const find = () => Bun.spawnSync([process.execPath, "-e", script, prefix, join(folder, "no cache")]);
  expect(find().exitCode).toBe(1);
  expect(find().stderr.toString()).toContain("libmlx needs libgone.so");
  // As in a wheel: beside the folder.
  mkdirSync(join(folder, "mlx.libs"));
  Bun.spawnSync(["cp", join(folder, "libgone.so"), join(folder, "mlx.libs")]);
  expect(find().stdout.toString().trim()).toBe(join(folder, "mlx.libs/libgone.so"));
});
