import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { completions } from "./complete";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-complete-"));
const { HF_HUB_CACHE } = process.env;

beforeAll(() => {
  for (const name of ["fox.json", "fox two.json", "owl.json", ".hidden", "bad\x1b[2J.json"]) {
    writeFileSync(join(folder, name), "");
  }
  mkdirSync(join(folder, "forest"));
  for (const name of ["models--mlx-community--Fox-4bit", "models--me--owl", "datasets--mlx-community--tales"]) {
    mkdirSync(join(folder, "hub", name, "snapshots"), { recursive: true });
  }
  process.env.HF_HUB_CACHE = join(folder, "hub");
});
afterAll(() => {
  if (HF_HUB_CACHE === undefined) delete process.env.HF_HUB_CACHE;
  else process.env.HF_HUB_CACHE = HF_HUB_CACHE;
  rmSync(folder, { recursive: true });
});

test.each([
  ["/sa", ["/save"], "/sa"],
  ["/s", ["/system", "/set", "/show", "/save"], "/s"],
  ["hello", [], "hello"],
  ["/set max", ["max-tokens"], "max"],
  ["/undo x", [], "x"],
  ["/model mlx", ["mlx-community/Fox-4bit"], "mlx"],
  ["/model ", ["demo", "me/owl", "mlx-community/Fox-4bit"], ""],
])("%j", async (line, candidates, replaced) => {
  const [found, end] = await completions(line);
  expect([found.toSorted(), end]).toEqual([candidates.toSorted(), replaced]);
});

test.each(["/load", "/save"])("files after %s, as they were typed", async (command) => {
  const at = (...names: string[]) => names.map((name) => `${folder}/${name}`);
  expect(await completions(`${command} ${folder}/fo`)).toEqual([
    at("forest/", "fox two.json", "fox.json"),
    `${folder}/fo`,
  ]);
  expect(await completions(`${command} ${folder}/fox t`)).toEqual([at("fox two.json"), `${folder}/fox t`]);
  expect((await completions(`${command} ${folder}/`))[0]).toEqual(
    at("forest/", "fox two.json", "fox.json", "hub/", "owl.json"),
  );
  expect((await completions(`${command} ${folder}/.`))[0]).toEqual(at(".hidden"));
  expect((await completions(`${command} ${folder}/nowhere/`))[0]).toEqual([]);
});

test("a folder after /model, and the home folder's short name", async () => {
  expect((await completions(`/model ${folder}/fores`))[0]).toEqual([`${folder}/forest/`]);
  const home = readdirSync(homedir()).filter((name) => !name.startsWith("."));
  const [found] = await completions("/load ~/");
  expect(found.map((path) => path.replace(/\/$/, ""))).toEqual(home.sort().map((name) => `~/${name}`));
});
