import { describe, expect, test } from "bun:test";
import { expectValues, fixture, float32 } from "../../test/parity/fixtures";
import { UserError } from "../errors";
import * as mx from "../mlx";
import { initializeRope, type RopeScaling } from "./rope";

interface Row {
  name: string;
  dims: number;
  base: number;
  traditional: boolean;
  scaling: RopeScaling | null;
  maxPositions: number | null;
  outputs: string[];
}

const { offsets, rows } = fixture<{ offsets: number[]; rows: Row[] }>("ropes.json");

/** (1, 2, 3, 16), as test/oracle/ropes.py makes them. */
const heads = () =>
  mx.array(
    Array.from({ length: 96 }, (_, i) => ((i * 37) % 101) / 101 - 0.5),
    "float32",
    [1, 2, 3, 16],
  );

for (const { name, outputs, ...options } of rows) {
  test(`${name}: Python's rotations`, () => {
    const before = mx.liveHandles();
    const rope = initializeRope(options);
    mx.scope(() => {
      for (const [i, offset] of offsets.entries()) {
        // Far positions turn fast dimensions by many radians, where float32 leaves fewer digits.
        const tolerance = offset > 100 ? 1e-4 : 1e-5;
        expectValues(rope.forward(heads(), offset).toArray(), float32(outputs[i]!), { tolerance });
      }
    });
    rope.dispose();
    expect(mx.liveHandles()).toBe(before);
  });
}

describe("errors", () => {
  const of = (scaling: RopeScaling) => () => initializeRope({ dims: 8, base: 1e4, scaling });

  test("a type without its numbers", () => {
    expect(of({ type: "linear" })).toThrow('rotary embeddings of type "linear" need "factor"');
    expect(of({ rope_type: "dynamic", factor: 2 })).toThrow('need "max_position_embeddings"');
    expect(of({ type: "mrope", mrope_section: [1, 2] })).toThrow("must be a list of 3 numbers, not [1,2]");
  });

  test("an unknown type", () => {
    expect(of({ rope_type: "spiral" })).toThrow(UserError);
    expect(of({ rope_type: "spiral" })).toThrow('rotary embeddings of type "spiral" are not supported');
  });
});
