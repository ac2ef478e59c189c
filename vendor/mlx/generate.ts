/**
 * Writes what follows from the op table: `ops.cpp` (the C wrappers) and `src/mlx/generated/ops.ts` (bun:ffi symbols
 * and typed calls). `bun vendor/mlx/generate.ts` refreshes the committed TypeScript; the build writes the C++.
 */
import { type Arg, type ArgKind, type Op, ops } from "./ops";

interface Kind {
  /** C parameter type. */
  c: string;
  /** bun:ffi type. */
  ffi: string;
  /** TypeScript parameter type of the generated call. */
  ts: string;
  /** C++ expression for the value, given the parameter's name. */
  value: (name: string) => string;
  /** TypeScript expression that is passed for the argument. */
  pass: (name: string) => string;
}

const plain = (c: string, ffi: string, ts: string, value = (name: string) => name): Kind => ({
  c,
  ffi,
  ts,
  value,
  pass: (name) => name,
});

/** Lists travel through the mailbox; the parameter is their length, -1 for an absent one. */
const list = (ts: string, value: (name: string) => string, pass = (name: string) => `writeInts(${name})`): Kind => ({
  c: "int32_t",
  ffi: "i32",
  ts,
  value,
  pass,
});

const kinds: Record<ArgKind, Kind> = {
  array: plain("int32_t", "i32", "Handle", (n) => `at(${n})`),
  "array?": { ...plain("int32_t", "i32", "Handle | null", (n) => `maybe_at(${n})`), pass: (n) => `${n} ?? 0` },
  "array[]": list("readonly Handle[]", (n) => `mail.arrays(${n})`),
  ints: list("readonly number[]", (n) => `mail.ints(${n})`),
  "ints?": list(
    "readonly number[] | null",
    (n) => `mail.maybe_ints(${n})`,
    (n) => `writeMaybeInts(${n})`,
  ),
  shape: list("readonly number[]", (n) => `mail.shape(${n})`),
  strides: list("readonly number[]", (n) => `mail.strides(${n})`),
  pair: list("readonly number[]", (n) => `mail.pair(${n})`),
  triple: list("readonly number[]", (n) => `mail.triple(${n})`),
  int: plain("int32_t", "i32", "number"),
  "int?": { ...plain("int32_t", "i32", "number | null", (n) => `maybe_int(${n})`), pass: (n) => `${n} ?? absentInt` },
  float: plain("double", "f64", "number", (n) => `static_cast<float>(${n})`),
  "float?": {
    ...plain("double", "f64", "number | null", (n) => `maybe_float(${n})`),
    pass: (n) => `${n} ?? Number.NaN`,
  },
  double: plain("double", "f64", "number"),
  bool: plain("bool", "bool", "boolean"),
  "bool?": {
    ...plain("int32_t", "i32", "boolean | null", (n) => `maybe_bool(${n})`),
    pass: (n) => `${n} === null ? absentInt : Number(${n})`,
  },
  string: { ...plain("const char*", "ptr", "string", (n) => `std::string(${n})`), pass: (n) => `cString(${n})` },
  dtype: plain("int32_t", "i32", "DtypeCode", (n) => `dtype_of(${n})`),
  "dtype?": {
    ...plain("int32_t", "i32", "DtypeCode | null", (n) => `maybe_dtype(${n})`),
    pass: (n) => `${n} ?? absentInt`,
  },
  seed: plain("double", "f64", "number", (n) => `static_cast<uint64_t>(${n})`),
  norm: plain("int32_t", "i32", "number", (n) => `static_cast<mx::fft::FFTNorm>(${n})`),
  "group?": { ...plain("int32_t", "i32", "number | null", (n) => `group_of(${n})`), pass: (n) => `${n} ?? -1` },
};

const symbol = (op: Op) => `mlxlm_${op.name}`;
const isList = (arg: Arg) => kinds[arg.kind].ts.includes("[]");

function cxxWrapper(op: Op): string {
  const parameters = op.args.map((arg) => `${kinds[arg.kind].c} ${arg.name}`).join(", ");
  // Lists are read from the mailbox in the order they were written, so each gets a local of its own first.
  const locals = op.args.filter(isList).map((arg) => `    auto ${arg.name}_ = ${kinds[arg.kind].value(arg.name)};\n`);
  const values = op.args.map((arg) => (isList(arg) ? `${arg.name}_` : kinds[arg.kind].value(arg.name)));
  if (op.stream) values.push("current_stream()");
  const call = `${op.ours ? "ours" : "mx"}::${op.cxx}(${values.join(", ")})`;
  const reader = locals.length > 0 ? "    MailReader mail;\n" : "";
  const body =
    op.result === "void"
      ? `    ${call};\n    return 0;\n`
      : `    return ${op.result === "array" ? "put" : "put_all"}(${call});\n`;
  return `int32_t ${symbol(op)}(${parameters}) {\n  return guarded([&]() -> int32_t {\n${reader}${locals.join("")}${body}  });\n}\n`;
}

/** The C++ of every wrapper. */
export function cxxSource(): string {
  return `// Generated from the op table by generate.ts.
#include "abi.h"
#include "ours.h"

using namespace mlxlm;

extern "C" {

${ops.map(cxxWrapper).join("\n")}
} // extern "C"
`;
}

function tsSymbol(op: Op): string {
  const args = op.args.map((arg) => `"${kinds[arg.kind].ffi}"`).join(", ");
  return `  ${symbol(op)}: { args: [${args}], returns: "i32" },`;
}

function tsCall(op: Op): string {
  const parameters = op.args.map((arg) => `${arg.name}: ${kinds[arg.kind].ts}`).join(", ");
  const passed = op.args.map((arg) => kinds[arg.kind].pass(arg.name)).join(", ");
  const begin = op.args.some(isList) ? "  beginMail();\n" : "";
  const call = `native.${symbol(op)}(${passed})`;
  const [type, wrap] =
    op.result === "array"
      ? ["Handle", "checked"]
      : op.result === "void"
        ? ["void", "checked"]
        : ["Handle[]", "readHandles"];
  const name = op.name === "var" ? "variance" : op.name;
  return `export function ${name}(${parameters}): ${type} {\n${begin}  ${type === "void" ? "" : "return "}${wrap}(${call});\n}`;
}

/** The TypeScript module: `opSymbols` for dlopen and one typed call an op. */
export function tsSource(): { symbols: string; calls: string } {
  const header = "// Generated from vendor/mlx/ops.ts by vendor/mlx/generate.ts. Do not edit.\n";
  return {
    symbols: `${header}\nexport const opSymbols = {\n${ops.map(tsSymbol).join("\n")}\n} as const;\n`,
    calls: `${header}import { native } from "../library";
import { absentInt, beginMail, cString, writeInts, writeMaybeInts } from "../mailbox";
import { checked, type DtypeCode, type Handle, readHandles } from "../native";

${ops.map(tsCall).join("\n\n")}
`,
  };
}

/** Where the generated TypeScript lives, relative to the repository's root. */
export const generatedFiles = { symbols: "src/mlx/generated/symbols.ts", calls: "src/mlx/generated/ops.ts" } as const;

if (import.meta.main) {
  const { symbols, calls } = tsSource();
  const root = `${import.meta.dir}/../..`;
  await Bun.write(`${root}/${generatedFiles.symbols}`, symbols);
  await Bun.write(`${root}/${generatedFiles.calls}`, calls);
}
