/** The programs that a build needs: from the machine, else cmake and ninja from PyPI into the build's own folder. */
import { existsSync } from "node:fs";
import { join } from "node:path";

/** Ends the build with one line that says what to do. */
export function fail(message: string): never {
  console.error(`build: ${message}`);
  process.exit(1);
}

/** Runs a program and returns its exit code and output; ends the build where it fails, unless that is allowed. */
export function run(
  command: readonly string[],
  { cwd, env, allowFailure = false }: { cwd?: string; env?: Record<string, string>; allowFailure?: boolean } = {},
): { code: number; output: string } {
  const result = Bun.spawnSync([...command], { cwd, env: { ...process.env, ...env }, stdout: "pipe", stderr: "pipe" });
  const output = `${result.stdout}${result.stderr}`;
  if (result.exitCode !== 0 && !allowFailure) {
    console.error(output);
    fail(`${command.slice(0, 4).join(" ")} … failed with exit code ${result.exitCode}`);
  }
  return { code: result.exitCode, output };
}

/** Python, which only the build needs: it brings MLX's SDK. */
export function python(): string {
  const found = Bun.which("python3") ?? Bun.which("python");
  if (!found)
    fail(
      "Python 3 with pip is needed to fetch MLX's SDK (the finished program does without): install python3 and python3-pip",
    );
  return found;
}

export interface Toolchain {
  cmake: string;
  ninja: string;
}

function newEnough(cmake: string): boolean {
  const [, major, minor] = /version (\d+)\.(\d+)/.exec(run([cmake, "--version"], { allowFailure: true }).output) ?? [];
  return Number(major) > 3 || (Number(major) === 3 && Number(minor) >= 24);
}

/** cmake ≥ 3.24, ninja and a C++ compiler. */
export function toolchain(cache: string): Toolchain {
  if (!["c++", "g++", "clang++"].some((name) => Bun.which(name))) {
    fail(
      "a C++20 compiler is needed: install g++ (Linux) or Xcode's command line tools (macOS: xcode-select --install)",
    );
  }
  const cmake = Bun.which("cmake");
  const ninja = Bun.which("ninja");
  if (cmake && ninja && newEnough(cmake)) return { cmake, ninja };

  const tools = join(cache, "tools");
  if (!existsSync(join(tools, "bin/cmake"))) {
    console.error("fetching cmake and ninja");
    const packages = ["cmake>=3.24,<4", "ninja"];
    const pip = run([python(), "-m", "pip", "install", "--quiet", "--target", tools, ...packages], {
      allowFailure: true,
    });
    if (pip.code !== 0)
      fail(`cmake ≥ 3.24 and ninja are needed, and pip could not fetch them: install them\n${pip.output}`);
  }
  return { cmake: join(tools, "cmake/data/bin/cmake"), ninja: join(tools, "bin/ninja") };
}
