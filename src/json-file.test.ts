import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdir, mkdtemp, rm, symlink, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { ExitCode, UserError } from "./errors";
import { readChecked, readJson, readText } from "./json-file";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "mlxlm-json-"));
});
afterAll(() => rm(folder, { recursive: true }));

const path = (name: string) => join(folder, name);

async function failure(promise: Promise<unknown>): Promise<UserError> {
  const error = await promise.catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(UserError);
  return error as UserError;
}

test("what is no regular file is refused, and not waited for", async () => {
  expect(Bun.spawnSync(["mkfifo", path("pipe")]).exitCode).toBe(0);
  await mkdir(path("folder"));
  await symlink("/dev/zero", path("device"));
  expect((await failure(readText(path("pipe")))).message).toContain("is a named pipe, not a file");
  expect((await failure(readText(path("device")))).message).toContain("is a device, not a file");
  expect((await failure(readText(path("folder")))).message).toContain("is a folder, not a file");
  expect((await failure(readJson(folder, "pipe"))).message).toContain("is a named pipe, not a file");
  expect(await readText(path("missing"))).toBeNull();
});

test("size and encoding", async () => {
  await writeFile(path("large"), "");
  await truncate(path("large"), 65 * 2 ** 20);
  expect((await failure(readText(path("large")))).message).toContain("68157440 bytes");
  await writeFile(path("latin1"), Buffer.from('{"a": "caf\xe9"}', "latin1"));
  expect((await failure(readText(path("latin1")))).message).toContain("line 1: this is not UTF-8 (byte 0xe9)");
  await writeFile(path("mark"), '\ufeff{"a": 1}');
  expect(await readJson(folder, "mark")).toEqual({ a: 1 });
});

test("a JSON file by its schema: Python's numbers, depth, and the field that is wrong", async () => {
  const schema = z.looseObject({ a: z.number() });
  await writeFile(path("good"), '{"a": 1, "b": Infinity}');
  expect(await readChecked(path("good"), schema)).toEqual({ a: 1, b: Number.POSITIVE_INFINITY });
  expect(await readChecked(path("missing"), schema)).toBeNull();
  await writeFile(path("wrong"), '{"a": "x"}');
  expect((await failure(readChecked(path("wrong"), schema))).message).toContain('"a": ');
  await writeFile(path("deep"), `{"a":${"[".repeat(100_000)}${"]".repeat(100_000)}}`);
  expect((await failure(readChecked(path("deep"), schema))).message).toContain("nests deeper than 200 levels");
  await writeFile(path("cut"), '{"a": ');
  expect((await failure(readChecked(path("cut"), schema))).message).toContain("it is not JSON: line 1");
  await writeFile(path("empty"), " ");
  expect((await failure(readChecked(path("empty"), schema))).message).toContain("the file is empty");
});

test("the object of a folder's file", async () => {
  await writeFile(path("list"), "[]");
  expect((await failure(readJson(folder, "list"))).message).toContain("must hold an object, not a list");
  expect((await failure(readJson(folder, "missing"))).code).toBe(ExitCode.notFound);
});
