import { expect, test } from "bun:test";
import { asWritten, writePythonJson } from "./write-json";

test("numbers are written as Python writes floats", () => {
  const value = {
    small: [1e-5, 0.0001, 2.5e-7],
    large: [10000, 1e15 + 0.5],
    none: [Number.NaN, Number.NEGATIVE_INFINITY],
  };
  expect(writePythonJson(value, 0)).toBe(
    '{"small":[1e-05,0.0001,2.5e-07],"large":[10000,1000000000000000.5],"none":[{"__float__":"NaN"},{"__float__":"-Infinity"}]}',
  );
});

test("a whole number that was written as a float stays one, where it is unchanged", () => {
  const text =
    '{"theta": 10000.0, "scale": 1e6, "eps": 1e-05, "layers": 2, "rope": {"factor": [8.0, 4]}, "old": 2.0, "inf": Infinity}';
  const value = { theta: 10000, scale: 1e6, eps: 1e-5, layers: 2, rope: { factor: [8, 4] }, old: 3, added: 5 };
  expect(writePythonJson(asWritten(value, text), 0)).toBe(
    '{"theta":10000.0,"scale":1000000.0,"eps":1e-05,"layers":2,"rope":{"factor":[8.0,4]},"old":3,"added":5}',
  );
  for (const other of ["no JSON", "[]", "null", '{"theta": {"a": 1.0}}', '{"rope": [8.0]}']) {
    expect(asWritten(value, other)).toEqual(value);
  }
});
