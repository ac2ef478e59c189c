/** Data files as programs write them that are not strict, and as nobody should. */
import { afterAll, describe, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { UserError } from "../errors";
import { openDataset } from "./dataset";
import { openRows } from "./row-files";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-rows-"));
afterAll(() => rmSync(folder, { recursive: true }));

function written(name: string, content: string | Uint8Array): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

async function rows(name: string, content: string | Uint8Array) {
  return (await openRows([written(name, content)])).all();
}

describe("JSON as Python writes it", () => {
  test("has NaN and infinities", async () => {
    const text =
      '{"text": "NaN", "a": NaN, "b": [Infinity, -Infinity, 1.0, {"c": NaN}]}\n{"text": "x", "a": 2.0, "b": []}\n';
    expect(await rows("nan.jsonl", text)).toEqual([
      { text: "NaN", a: Number.NaN, b: [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 1, { c: Number.NaN }] },
      { text: "x", a: 2, b: [] },
    ]);
    expect((await openRows([join(folder, "nan.jsonl")])).floats.has("a")).toBe(true);
    expect(await rows("nan.json", '[{"a": NaN}]')).toEqual([{ a: Number.NaN }]);
  });

  test("that is an object of that form stays one", async () => {
    expect(await rows("float.jsonl", '{"a": {"__float__": "NaN"}}')).toEqual([{ a: { __float__: "NaN" } }]);
  });

  test.each(['{"a": nan}', '{"a": +Infinity}', '{"a": NaNa}', '{"a": NaN'])("is no JSON: %s", async (text) => {
    await expect(rows("no.jsonl", text)).rejects.toThrow(/no\.jsonl, line 1: this is no JSON/);
  });
});

describe("rows that nest too deep are an error that names the row", () => {
  const deep = (count: number) => "[".repeat(count) + "]".repeat(count);
  test.each([
    ["deep.jsonl", `{"text": "x"}\n{"y": ${deep(100_000)}}\n`, /line 2: it nests deeper/],
    ["deep-float.jsonl", `{"text": "x"}\n{"z": 1.0, "y": ${deep(100_000)}}\n`, /line 2: .*nests/],
    ["deep-nan.jsonl", `{"text": "x"}\n{"z": NaN, "y": ${deep(100_000)}}\n`, /line 2: .*nests/],
    ["deep.json", `[{"y": ${deep(100_000)}}]`, /row 1: it nests deeper/],
    ["list.jsonl", deep(100_000), /line 1: a row must be an object/],
  ])("%s", async (name, text, problem) => {
    const error = await rows(name, text).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(UserError);
    expect((error as UserError).message).toMatch(problem);
  });

  test("a hundred levels are none too many", async () => {
    expect(await rows("some.jsonl", `{"y": ${deep(100)}}`)).toHaveLength(1);
  });
});

describe("CSV", () => {
  test("has cells of any length", async () => {
    const long = "a".repeat(2_500_000);
    expect(await rows("long.csv", `text,n\n"${long}""",1\n${long},2\n`)).toEqual([
      { text: `${long}"`, n: 1 },
      { text: long, n: 2 },
    ]);
  });

  test("has line ends, delimiters and quotes in quotes, and text behind them", async () => {
    expect(await rows("quotes.csv", 'a,b\r\n"x,\n""y""",z\r\n"q"r,\n')).toEqual([
      { a: 'x,\n"y"', b: "z" },
      { a: "qr", b: null },
    ]);
    await expect(rows("open.csv", 'a\n"x\ny"\n"z""\n')).rejects.toThrow(/line 4: a quote opens here and never closes/);
    await expect(rows("more.csv", 'a\n"x\ny"\nb,c\n')).rejects.toThrow(/line 4: 2 cells/);
  });
});

describe("a folder without data files of its own", () => {
  test("says what it takes from its folders", async () => {
    const path = join(folder, "outer");
    for (const name of ["a", "b"]) {
      mkdirSync(join(path, name), { recursive: true });
      writeFileSync(join(path, name, "train.jsonl"), '{"text": "x"}\n');
    }
    const notices: string[] = [];
    const splits = await openDataset(path, { onNotice: (line) => notices.push(line) });
    expect(splits.get("train")).toHaveLength(2);
    expect(notices).toEqual([
      `${path} has no data files of its own. Taking those of its folders: a/train.jsonl, b/train.jsonl`,
    ]);
    writeFileSync(join(path, "test.jsonl"), '{"text": "x"}\n');
    await openDataset(path, { onNotice: (line) => notices.push(line) });
    expect(notices).toHaveLength(1);
  });

  test("and with none in its folders is an error that names them", async () => {
    const path = join(folder, "hollow");
    mkdirSync(join(path, "inner"), { recursive: true });
    await expect(openDataset(path)).rejects.toThrow(`${path} has no files with data, nor have its folders (inner)`);
  });
});

test("a Parquet file whose groups say no number of rows is damaged", async () => {
  const path = join(import.meta.dir, "..", "..", "test", "fixtures", "no-rows.parquet");
  await expect(openRows([path])).rejects.toThrow(/cannot be read as Parquet: a group says no number of rows/);
});

test("a text in a Parquet file that is not UTF-8 is an error", async () => {
  const fixture = join(import.meta.dir, "..", "..", "test", "fixtures", "evaluate", "table-none.parquet");
  const bytes = readFileSync(fixture);
  // A text is its length in four bytes, then its own.
  const at = bytes.indexOf(Buffer.from([1, 0, 0, 0, 0x62]));
  expect(at).toBeGreaterThan(0);
  bytes[at + 4] = 0xe9;
  await expect(rows("latin.parquet", bytes)).rejects.toThrow(/cannot be read as Parquet: a text in it is not UTF-8/);
});
