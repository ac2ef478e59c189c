/** Every refusal of the operating system is a sentence with a next step, and no defect of ours. */
import { afterAll, describe, expect, spyOn, test } from "bun:test";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { replaceFile } from "./atomic-file";
import { ExitCode, UserError } from "./errors";
import { removeLeftovers, uniqueMark } from "./leftovers";
import { systemError } from "./system-errors";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-system-"));
afterAll(() => rmSync(folder, { recursive: true }));

const at = (...names: string[]) => join(folder, ...names);
writeFileSync(at("file"), "");
symlinkSync("loop", at("loop"));
mkdirSync(at("full", "inner"), { recursive: true });
mkdirSync(at("other", "inner"), { recursive: true });

describe("what the system refuses", () => {
  const cases: [string, () => Promise<unknown>, RegExp, ExitCode][] = [
    ["ENOTDIR", () => readFile(at("file", "x")), /a part of the path is a file/, ExitCode.usage],
    ["EISDIR", () => readFile(folder), /it is a folder, not a file/, ExitCode.usage],
    ["ELOOP", () => readFile(at("loop")), /links lead round in a circle/, ExitCode.usage],
    ["ENAMETOOLONG", () => writeFile(at("n".repeat(300)), ""), /the name is too long/, ExitCode.usage],
    ["EEXIST", () => writeFile(at("file"), "", { flag: "wx" }), /it exists already/, ExitCode.usage],
    ["EEXIST", () => mkdir(at("file", "x"), { recursive: true }), /a (file is where a folder|part)/, ExitCode.usage],
    ["ENOTEMPTY", () => rename(at("other"), at("full")), /exists already, and is not empty/, ExitCode.usage],
    ["ENOENT", () => readFile(at("nothing")), /there is no such file/, ExitCode.notFound],
  ];
  // Only Linux has a device that is always full.
  if (existsSync("/dev/full")) {
    cases.push(["ENOSPC", () => writeFile("/dev/full", "x"), /the disk is full/, ExitCode.resources]);
  }
  test.each(cases)("%s", async (_, work, sentence, code) => {
    const error = systemError(await work().catch((reason: unknown) => reason));
    expect(error).toBeInstanceOf(UserError);
    expect(error!.message).toMatch(sentence);
    expect(error!.message.length).toBeLessThan(400);
    expect(error).toMatchObject({ code, hint: expect.any(String) });
  });

  test.each([
    ["EACCES", ExitCode.failure],
    ["EPERM", ExitCode.failure],
    ["EROFS", ExitCode.failure],
    ["EDQUOT", ExitCode.resources],
    ["EFBIG", ExitCode.resources],
    ["EMFILE", ExitCode.resources],
    ["ENFILE", ExitCode.resources],
    ["ENOMEM", ExitCode.resources],
  ])("%s, as the system words it", (name, code) => {
    const error = Object.assign(new Error(`${name}: no, open '/x'`), { code: name, syscall: "open", path: "/x" });
    expect(systemError(error)).toMatchObject({ code, message: expect.stringMatching(/^\/x: .* \(E[A-Z]+\)$/) });
  });

  test("a disk from which nothing may be run", () => {
    const text = 'Failed to open library "/c/libmlxlm.so": /c/libmlxlm.so: failed to map segment from shared object';
    expect(systemError(new Error(text))).toMatchObject({
      message: "/c/libmlxlm.so: programs may not run from that disk (noexec)",
      hint: expect.stringContaining("XDG_CACHE_HOME"),
    });
  });

  test("other errors are others'", () => {
    const refused = Object.assign(new Error("connect ECONNREFUSED"), { code: "ECONNREFUSED", syscall: "connect" });
    for (const error of [new TypeError("x is not a function"), new UserError("known"), refused, "text", null]) {
      expect(systemError(error)).toBeNull();
    }
  });
});

describe("a file that cannot be replaced", () => {
  const full = () => Promise.reject(Object.assign(new Error("ENOSPC: no space"), { code: "ENOSPC", syscall: "write" }));
  const ofMlx = () => Promise.reject(new Error("[save] unable to write 512 bytes to file"));
  test.each([
    ["a folder is there", at("full"), () => {}, /full cannot be written: it is a folder/, ExitCode.usage],
    ["the disk is full", at("new"), full, /new cannot be written: the disk is full/, ExitCode.resources],
    ["MLX had no room", at("new"), ofMlx, /new cannot be written: the disk is full/, ExitCode.resources],
  ])("because %s stays, and nothing beside it", async (_, path, write, sentence, code) => {
    const before = readdirSync(folder);
    const error = await replaceFile(path, write).catch((reason: unknown) => reason);
    expect((error as UserError).message).toMatch(sentence);
    expect((error as UserError).code).toBe(code);
    expect(readdirSync(folder)).toEqual(before);
  });
});

describe("what a killed process left", () => {
  test("goes with the next write beside it; what a living one writes stays", async () => {
    const dead = Bun.spawnSync([process.execPath, "-e", "console.log(process.pid)"]).stdout.toString().trim();
    const of = (pid: string | number) => uniqueMark().replace(/\d+$/, `${pid}`);
    const inner = at("left");
    mkdirSync(inner);
    const stays = [
      `.${of(process.pid)}.json`,
      `.${of(dead).replace(/-.*-/, "-00000000-")}.json`,
      ".12345678.json",
      `${of(dead)}.json`,
    ];
    for (const name of [...stays, `.${of(dead)}.json`]) writeFileSync(join(inner, name), "");
    await replaceFile(join(inner, "new.json"), (path) => writeFile(path, "{}"));
    expect(readdirSync(inner).sort()).toEqual([...stays, "new.json"].sort());

    mkdirSync(join(inner, `model.partial-${of(dead)}`, "x"), { recursive: true });
    const living = `model.partial-${of(process.pid)}`;
    mkdirSync(join(inner, living));
    await removeLeftovers(inner, (name) => name.includes(".partial-"));
    const partial = readdirSync(inner).filter((name) => name.includes(".partial-"));
    expect(partial).toEqual([living]);
  });

  test("of another user stays", async () => {
    const inner = at("foreign");
    mkdirSync(inner);
    const dead = Bun.spawnSync([process.execPath, "-e", "console.log(process.pid)"]).stdout.toString().trim();
    const name = `.${uniqueMark().replace(/\d+$/, dead)}.json`;
    writeFileSync(join(inner, name), "");
    chmodSync(join(inner, name), 0o600);
    const uid = process.getuid!();
    const other = spyOn(process, "getuid").mockReturnValue(uid + 1);
    await removeLeftovers(inner, () => true);
    other.mockRestore();
    expect(readdirSync(inner)).toEqual([name]);
  });
});
