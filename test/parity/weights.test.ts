import { expect, test } from "bun:test";
import { fixture, float32 } from "./fixtures";
import { weight } from "./weights";

interface Row {
  name: string;
  shape: number[];
  salt: number;
  values: string;
}

for (const row of fixture<Row[]>("weights.json")) {
  test(`${row.name} has Python's bits`, () => {
    expect(weight(row.name, row.shape, row.salt)).toEqual(float32(row.values));
  });
}
