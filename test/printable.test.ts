/** What comes out of files and models, on a terminal and in a pipe. */
import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { TerminalProgram } from "./terminal";

let script: string;
beforeAll(async () => {
  const folder = await mkdtemp(join(tmpdir(), "mlxlm-printable-"));
  script = join(folder, "prints.ts");
  const source = (name: string) => JSON.stringify(join(import.meta.dir, "../src", name));
  await writeFile(
    script,
    `import { Output } from ${source("cli/output")};
     import { reportError } from ${source("cli/report-error")};
     import { UserError } from ${source("errors")};
     const out = new Output(false);
     out.text("a model says \\u001b]0;title\\u0007\\n");
     out.info("\\u001b[1mours\\u001b[22m and \\u001b[2J");
     out.warn("a file is called \\u202egpj");
     reportError(new UserError("bad \\u001b[2J", { hint: "see \\u009b2J" }), { json: false, debug: false });
     console.error("end");`,
  );
});
afterAll(() => rm(join(script, ".."), { recursive: true }));

test("a terminal is shown what would steer it", async () => {
  const program = new TerminalProgram([process.execPath, script]);
  await program.until("end");
  expect(program.screen).toContain("a model says \\x1b]0;title\\x07");
  expect(program.screen).toContain("\u001b[1mours\u001b[22m and \\x1b[2J");
  expect(program.screen).toContain("a file is called \\u202egpj");
  expect(program.screen).toContain("bad \\x1b[2J");
  expect(program.screen).toContain("see \\x9b2J");
  expect(program.screen).not.toContain("\u001b[2J");
});

test("a pipe gets the bytes", () => {
  const { stdout, stderr } = Bun.spawnSync([process.execPath, script]);
  expect(stdout.toString()).toBe("a model says \u001b]0;title\u0007\n");
  expect(stderr.toString()).toContain("bad \u001b[2J\n");
  expect(stderr.toString()).toContain("a file is called \u202egpj");
});
