import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { checkEnvironment, environment, expandedPath, listedVariables, type VariableName } from "./environment";
import { ExitCode, type UserError } from "./errors";

const root = join(import.meta.dir, "..");

function sources(...globs: string[]): [path: string, text: string][] {
  const paths = globs.flatMap((glob) => [...new Bun.Glob(glob).scanSync({ cwd: root })]);
  return paths.map((path) => [path, readFileSync(join(root, path), "utf8")]);
}

const readBy = (half: string) =>
  listedVariables()
    .flatMap(([name, variable]) => (variable.readBy === half ? [name as string] : []))
    .sort();

test("native code reads what the table says, by one function", () => {
  const read = new Set<string>();
  for (const [path, text] of sources("vendor/mlx/src/**/*.{cpp,h}")) {
    if (path.endsWith("src/environment.h")) continue;
    expect([path, text.includes("getenv(")]).toEqual([path, false]);
    for (const [, name] of text.matchAll(/\benvironment\("(\w+)"\)/g)) read.add(name!);
  }
  expect([...read].sort()).toEqual(readBy("native"));
});

test("TypeScript reads what the table says, by one function", () => {
  const read = new Set<string>();
  for (const [path, text] of sources("src/**/*.ts", "cmd/**/*.ts")) {
    // make.ts trains the demo model, in a checkout only.
    if (path.endsWith(".test.ts") || path === "src/environment.ts" || path === "src/demo/make.ts") continue;
    expect([path, /\bprocess\.env\s*[.[]|\}\s*=\s*process\.env|Bun\.env/.test(text)]).toEqual([path, false]);
    for (const [, name] of text.matchAll(/\benvironment\(\s*"(\w+)"/g)) read.add(name!);
  }
  expect([...read].sort()).toEqual(readBy("typescript"));
});

test("an empty variable is one that is not set", () => {
  expect(environment("HF_HOME", { HF_HOME: "" })).toBeUndefined();
  expect(environment("HF_HOME", { HF_HOME: "/x" })).toBe("/x");
});

test.each<[VariableName, string, string]>([
  ["MLXLM_CPU_ISA", "axv2", "plain, avx2, avx512 or avx512_bf16"],
  ["MLXLM_CPU_ISA", "AVX2", "plain, avx2, avx512 or avx512_bf16"],
  ["MLXLM_CPU_KERNELS", "off", "0 or 1"],
  ["MLXLM_COMPILE", "yes", "0 or 1"],
  ["MLXLM_CUDA_KERNELS", "2", "0 or 1"],
  ["MLXLM_THREADS", "0", "a whole number, 1 or more"],
  ["MLXLM_THREADS", " 4", "a whole number, 1 or more"],
  ["MLXLM_THREADS", "four", "a whole number, 1 or more"],
  ["MLXLM_USE_MODELSCOPE", "1", "true or false"],
])("%s=%s is an error that says what is allowed", (name, value, words) => {
  let thrown: unknown;
  try {
    checkEnvironment({ [name]: value });
  } catch (error) {
    thrown = error;
  }
  expect((thrown as UserError).code).toBe(ExitCode.usage);
  expect((thrown as UserError).message).toContain(`${name} is ${JSON.stringify(value)}`);
  expect((thrown as UserError).message).toContain(words);
});

test("right values and empty ones pass", () => {
  const right = { MLXLM_CPU_ISA: "avx2", MLXLM_THREADS: "999", MLXLM_COMPILE: "", MLXLM_USE_MODELSCOPE: "True" };
  expect(checkEnvironment({ ...right, HF_HUB_OFFLINE: "maybe", MLX_RANK: "x" })).toEqual([]);
});

test("an unknown variable of ours gets one warning", () => {
  expect(checkEnvironment({ MLXLM_THREAD: "4" })).toEqual([
    "there is no environment variable MLXLM_THREAD: did you mean MLXLM_THREADS?",
  ]);
});

test("paths from the environment know ~ and variables", () => {
  expect(expandedPath("$A/b/$C", { A: "/a" })).toBe("/a/b/$C");
  expect(expandedPath("~/x")).toStartWith("/");
});
