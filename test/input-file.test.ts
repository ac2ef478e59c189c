/** Files that cannot be read to their end, and bytes that are no text. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readGgufHeader } from "../src/convert/gguf/header";
import { openRows } from "../src/data/row-files";
import { ExitCode, UserError } from "../src/errors";
import { decodeText, inputFile, inputFileSync, inputText } from "../src/input-file";
import { readSafetensorsHeader } from "../src/mlx/safetensors-header";
import { readChatTemplates } from "../src/text/tokenizer-config";
import { readSettingsFile } from "../src/tune/settings";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-input-"));
afterAll(() => rmSync(folder, { recursive: true }));

function pipe(name: string): string {
  const path = join(folder, name);
  expect(Bun.spawnSync(["mkfifo", path]).exitCode).toBe(0);
  return path;
}

describe("what is no file is refused at once", () => {
  const readers: [name: string, file: string, read: (path: string) => Promise<unknown>][] = [
    ["a file's facts", "facts", inputFile],
    ["a file's facts at once", "facts-sync", async (path) => inputFileSync(path)],
    ["text", "text.txt", inputText],
    ["JSON Lines", "a.jsonl", (path) => openRows([path])],
    ["CSV", "a.csv", (path) => openRows([path])],
    ["Parquet", "a.parquet", (path) => openRows([path])],
    ["safetensors", "a.safetensors", (path) => readSafetensorsHeader(path)],
    ["GGUF", "a.gguf", readGgufHeader],
    ["settings", "a.yaml", readSettingsFile],
    ["a chat template", "chat_template.jinja", () => readChatTemplates(folder, {} as never)],
  ];
  test.each(readers)("%s", async (_, name, read) => {
    const path = pipe(name);
    const error = await read(path).catch((reason: unknown) => reason);
    rmSync(path);
    expect(error).toBeInstanceOf(UserError);
    expect(error).toMatchObject({ code: ExitCode.usage, message: `${path} is a named pipe, not a file` });
  });

  test("devices, sockets and folders", async () => {
    await expect(inputFile("/dev/zero")).rejects.toThrow("/dev/zero is a device, not a file");
    const path = join(folder, "socket");
    const server = createServer().listen(path);
    await new Promise((done) => server.once("listening", done));
    await expect(inputFile(path)).rejects.toThrow(/is a socket/);
    server.close();
    const inner = join(folder, "inner");
    mkdirSync(inner);
    await expect(inputFile(inner)).rejects.toThrow(/is a folder/);
  });

  test("what is not there is null", async () => {
    expect(await inputFile(join(folder, "nothing"))).toBeNull();
    expect(inputFileSync(join(folder, "nothing"))).toBeNull();
    expect(await inputText(join(folder, "nothing"))).toBeNull();
  });
});

test("what a shell puts in a file's place is read", async () => {
  const script = `
    const { inputText } = await import(${JSON.stringify(join(import.meta.dir, "..", "src", "input-file.ts"))});
    console.log(await Promise.all(process.argv.slice(1).map(inputText)));
  `;
  const words = ["-c", `printf one | "$0" -e "$1" /dev/stdin <(printf two) ${join(folder, "three")}`];
  writeFileSync(join(folder, "three"), "\ufeffthree");
  const run = Bun.spawnSync(["bash", ...words, process.execPath, script]);
  expect(run.stdout.toString()).toBe('[ "one", "two", "three" ]\n');
});

describe("bytes that are not UTF-8", () => {
  const bytes = (...parts: (string | number[])[]) =>
    new Uint8Array(Buffer.concat(parts.map((part) => Buffer.from(part as string))));

  test.each([
    [bytes("a\ncaf", [0xe9], "\n"), "line 2", "0xe9"],
    [bytes("ü\n\n", [0x80]), "line 3", "0x80"],
    [bytes("a", [0xe2, 0x82]), "line 1", "0xe2"],
    [bytes("a", [0xe2, 0x82], "x\n"), "line 1", "0xe2"],
    [bytes("é", [0x80], "\n"), "line 1", "0x80"],
    [bytes("\r\n", [0xff]), "line 2", "0xff"],
    [bytes([0xed, 0xa0, 0x80]), "line 1", "0xed"],
    [bytes("\n".repeat(100_000), "x", [0xf0, 0x9f]), "line 100001", "0xf0"],
  ])("%# are told by line and byte", (text, line, byte) => {
    expect(() => decodeText(text, "f.jsonl")).toThrow(`f.jsonl, ${line}: this is not UTF-8 (byte ${byte})`);
  });

  test("UTF-16 is called so", () => {
    expect(() => decodeText(bytes([0xff, 0xfe], "a", [0]), "f.csv")).toThrow("f.csv is UTF-16, not UTF-8");
  });

  for (const [name, content] of [
    ["latin.jsonl", [bytes('{"text": "a"}\n{"text": "caf', [0xe9], '"}\n')]],
    ["latin.json", [bytes('[\n{"text": "caf', [0xe9], '"}]')]],
    ["latin.csv", [bytes("text\ncaf", [0xe9], "\n")]],
    ["latin.tsv", [bytes("text\ncaf", [0xe9], "\n")]],
    ["latin.txt", [bytes("text\ncaf", [0xe9], "\n")]],
  ] as const) {
    test(`in ${name} are an error`, async () => {
      const path = join(folder, name);
      writeFileSync(path, content[0]!);
      await expect(openRows([path])).rejects.toThrow(`${path}, line 2: this is not UTF-8 (byte 0xe9)`);
    });
  }
});
