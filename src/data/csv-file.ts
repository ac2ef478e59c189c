/** CSV as pandas reads it: a heading, quoted cells, columns of one type each. */
import { UserError } from "../errors";
import { type Row, RowList, type Rows } from "./rows";

/** What stands for nothing. */
const missing = new Set(
  [
    "",
    "#N/A",
    "#N/A N/A",
    "#NA",
    "-1.#IND",
    "-1.#QNAN",
    "-NaN",
    "-nan",
    "1.#IND",
    "1.#QNAN",
    "<NA>",
    "N/A",
    "NA",
  ].concat(["NULL", "NaN", "None", "n/a", "nan", "null"]),
);

const whole = /^\s*[+-]?\d+\s*$/;
const decimal = /^\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*$/;

/** @throws UserError for a quote that never closes, or a line with more cells than the heading */
export function readCsv(text: string, path: string, delimiter: string): Rows {
  const lines = cellsOf(text, path, delimiter);
  const [heading, ...body] = lines;
  if (!heading) throw new UserError(`${path} is empty`, { hint: "The first line names the columns." });
  const columns = heading.cells;
  for (const { cells, line } of body) {
    if (cells.length <= columns.length) continue;
    throw new UserError(`${path}, line ${line}: ${cells.length} cells, but the heading has ${columns.length}`, {
      hint: "Put cells that hold the delimiter into quotes.",
    });
  }
  const floats = new Set<string>();
  const values = columns.map((name, i) => {
    const texts = body.map(({ cells }) => cells[i] ?? "");
    const { items, isFloat } = typed(texts);
    if (isFloat) floats.add(name);
    return items;
  });
  const rows = body.map((_, i): Row => Object.fromEntries(columns.map((name, j) => [name, values[j]![i]])));
  return new RowList(rows, (i) => `${path}, line ${body[i]!.line}`, { floats, columns });
}

/** A column's cells as its type. Whole numbers beside gaps are floats, as pandas has them. */
function typed(texts: readonly string[]): { items: unknown[]; isFloat: boolean } {
  const known = texts.filter((text) => !missing.has(text));
  const read = (change: (text: string) => unknown) => texts.map((text) => (missing.has(text) ? null : change(text)));
  if (known.length === 0) return { items: read(String), isFloat: false };
  if (known.every((text) => decimal.test(text))) {
    return { items: read(Number), isFloat: known.length < texts.length || !known.every((text) => whole.test(text)) };
  }
  const truth = known.every((text) => /^(?:true|false)$/i.test(text));
  return { items: read(truth ? (text) => text.toLowerCase() === "true" : String), isFloat: false };
}

interface Line {
  cells: string[];
  /** Where it begins, from 1 on. */
  line: number;
}

function cellsOf(text: string, path: string, delimiter: string): Line[] {
  const lines: Line[] = [];
  const cellEnd = delimiter === "," ? /[,\r\n]/g : /[\t\r\n]/g;
  const endAfter = (at: number) => {
    cellEnd.lastIndex = at;
    return cellEnd.exec(text)?.index ?? text.length;
  };
  let at = 0;
  let line = 1;
  while (at < text.length) {
    const began = line;
    const cells: string[] = [];
    while (true) {
      let quoted = "";
      if (text[at] === '"') {
        const close = closingQuote(text, at + 1);
        if (close < 0) {
          throw new UserError(`${path}, line ${line}: a quote opens here and never closes`, {
            hint: 'Inside quotes, a quote is written twice: "".',
          });
        }
        const inner = text.slice(at + 1, close);
        quoted = inner.replaceAll('""', '"');
        line += inner.split("\n").length - 1;
        at = close + 1;
      }
      const end = endAfter(at);
      cells.push(quoted + text.slice(at, end));
      at = end;
      if (text[at] !== delimiter) break;
      at++;
    }
    at += text.startsWith("\r\n", at) ? 2 : 1;
    line++;
    if (cells.length > 1 || cells[0] !== "") lines.push({ cells, line: began });
  }
  return lines;
}

/** Where the quote is that ends a cell; -1 where there is none. */
function closingQuote(text: string, from: number): number {
  for (let at = text.indexOf('"', from); at >= 0; at = text.indexOf('"', at + 2)) {
    if (text[at + 1] !== '"') return at;
  }
  return -1;
}
