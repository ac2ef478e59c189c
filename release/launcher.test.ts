import { afterAll, expect, test } from "bun:test";
import {
  chmodSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const scratch = mkdtempSync(join(tmpdir(), "mlxlm-launcher-"));
afterAll(() => rmSync(scratch, { recursive: true }));

const own = `${process.platform}-${process.arch}`;
let count = 0;

/** An installed package mlxlm, its launcher linked as npm links bins. @param platforms packages beside it */
function installed(place: "beside" | "inside", platforms: readonly string[]) {
  const modules = join(scratch, `${count++}`, "node_modules");
  const home = join(modules, "mlxlm");
  mkdirSync(join(home, "bin"), { recursive: true });
  mkdirSync(join(modules, ".bin"));
  writeFileSync(join(home, "package.json"), '{"version":"1.2.3"}');
  copyFileSync(join(import.meta.dir, "npm/mlxlm"), join(home, "bin/mlxlm"));
  const alias = readFileSync(join(import.meta.dir, "npm/alias"), "utf8").replaceAll("COMMAND", "generate");
  writeFileSync(join(home, "bin/mlxlm.generate"), alias);
  for (const name of ["mlxlm", "mlxlm.generate"]) {
    chmodSync(join(home, "bin", name), 0o755);
    symlinkSync(join("../mlxlm/bin", name), join(modules, ".bin", name));
  }
  for (const platform of platforms) {
    const folder = join(place === "beside" ? modules : join(home, "node_modules"), "@mlxlm", platform);
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, "package.json"), "{}");
    writeFileSync(join(folder, "mlxlm"), `#!/bin/sh\nprintf '%s|' ${platform} "$@"\nexit 7\n`);
    chmodSync(join(folder, "mlxlm"), 0o755);
  }
  return join(modules, ".bin");
}

function run(...command: string[]) {
  const { stdout, stderr, exitCode } = Bun.spawnSync(command);
  return { out: stdout.toString(), problems: stderr.toString(), code: exitCode };
}

for (const place of ["beside", "inside"] as const) {
  test(`the platform's package ${place} it is started, with its words and exit code`, () => {
    const bin = installed(place, [own]);
    const said = `${own}|chat|two words|`;
    for (const start of [[], [process.execPath]]) {
      expect(run(...start, join(bin, "mlxlm"), "chat", "two words")).toMatchObject({ out: said, code: 7 });
      expect(run(...start, join(bin, "mlxlm.generate"), "-m", "1")).toMatchObject({
        out: `${own}|generate|-m|1|`,
        code: 7,
      });
    }
  });
}

test.if(own === "linux-x64")("the CUDA package goes before the CPU's", () => {
  const bin = installed("beside", [own, `${own}-cuda`]);
  expect(run(join(bin, "mlxlm")).out).toBe(`${own}-cuda|`);
  expect(run(process.execPath, join(bin, "mlxlm")).out).toBe(`${own}-cuda|`);
});

test("a missing platform package is named, with the command that gets it", () => {
  const bin = installed("beside", []);
  const { problems, code } = run(process.execPath, join(bin, "mlxlm"));
  expect(code).toBe(1);
  expect(problems).toContain(`npm install @mlxlm/${own}@1.2.3`);
});
