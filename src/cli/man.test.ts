/** Man pages: for every command and topic, and nothing in them that a formatter would take for its own. */
import { describe, expect, test } from "bun:test";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { command } from "./command";
import { flag } from "./flags";
import { manPages } from "./man";
import { writeManPages } from "./man-files";
import { topics } from "./topics";

const tricky = command({
  name: "tricky_one",
  summary: "Show \\n, a - dash and …",
  examples: [".leading dot", "'quoted'"],
  flags: {
    model: flag.path("a model", { placeholder: "MODEL", positional: true }),
    count: flag.integer(".how many; \\t too", { alias: ["c"], default: 3 }),
    kind: flag.choice("which", ["a-b", "c"]),
  },
  async run() {},
});

const source = {
  version: "1.2.3",
  date: "2026-11-29",
  commands: [tricky],
  builtIns: [{ words: "man FOLDER", summary: "write man pages", help: "" }],
};
const pages = manPages(source);

describe("man pages", () => {
  test("there is one of the program, of each command and of each topic", () => {
    expect([...pages.keys()]).toEqual([
      "mlxlm.1",
      "mlxlm-tricky_one.1",
      ...topics.map(({ name }) => `mlxlm-${name}.7`),
    ]);
  });

  test("name the flags, their values and defaults", () => {
    const page = pages.get("mlxlm-tricky_one.1")!;
    expect(page).toContain('.TH "MLXLM-TRICKY_ONE" "1" "2026-11-29" "mlxlm 1.2.3"');
    expect(page).toContain(".TP\n\\fB\\-\\-count\\fR, \\fB\\-c\\fR \\fIN\\fR\n\\&.how many; \\et too (3)\n");
    expect(page).toContain("\\fIa\\-b|c\\fR");
    expect(page).toContain("\\-\\-json");
    expect(page).toContain("\\fBmlxlm tricky_one\\fR [\\fIMODEL\\fR] [\\fIflags\\fR]");
  });

  test("escape what roff would read", () => {
    const page = pages.get("mlxlm-tricky_one.1")!;
    expect(page).toContain("Show \\en, a \\- dash and \\[u2026]");
    expect(page).toContain(".nf\n\\&.leading dot\n\\&'quoted'\n.fi");
    expect(page).toMatch(/^[\n\x20-\x7e]*$/);
  });

  test.skipIf(!Bun.which("mandoc"))("mandoc finds nothing to warn of", async () => {
    const folder = mkdtempSync(join(tmpdir(), "mlxlm-man-"));
    const paths = await writeManPages(folder, source);
    expect(readdirSync(folder).sort()).toEqual([...pages.keys()].sort());
    const { stdout, exitCode } = Bun.spawnSync(["mandoc", "-T", "lint", "-W", "warning", ...paths]);
    rmSync(folder, { recursive: true });
    expect([stdout.toString(), exitCode]).toEqual(["", 0]);
  });
});
