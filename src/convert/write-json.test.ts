import { expect, test } from "bun:test";
import { writePythonJson } from "./write-json";

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
