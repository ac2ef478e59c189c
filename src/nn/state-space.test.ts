/** The state space by blocks against its recurrence, one token after the other. */
import { test } from "bun:test";
import { expectValues } from "../../test/parity/fixtures";
import * as mx from "../mlx";
import { type StateSpace, selectiveStateSpace } from ".";

const [batch, heads, headDim, groups, stateSize] = [2, 4, 3, 2, 5];

function draw(length: number) {
  mx.random.seed(length);
  const normal = (...shape: number[]) => mx.random.normal({ shape });
  const inputs = {
    x: normal(batch, length, heads, headDim),
    B: normal(batch, length, groups, stateSize),
    C: normal(batch, length, groups, stateSize),
    dt: normal(batch, length, heads),
  };
  const space: StateSpace = { A_log: normal(heads), D: normal(heads), dt_bias: normal(heads), limits: [0.01, 2] };
  return { inputs, space, state: normal(batch, heads, headDim, stateSize) };
}

/** h ← exp(Δ A) h + Δ B x; y = C h + D x, in plain numbers. */
function recurrently({ inputs, space, state }: ReturnType<typeof draw>, lengths: readonly number[]) {
  const [x, B, C, dt] = [inputs.x, inputs.B, inputs.C, inputs.dt].map((t) => t.toList()) as [
    number[][][][],
    number[][][][],
    number[][][][],
    number[][][],
  ];
  const [A, D, bias] = [space.A_log, space.D, space.dt_bias].map((t) => t.toList()) as [number[], number[], number[]];
  const h = state.toList() as number[][][][];
  const y = x.map((row, b) =>
    row.map((token, t) =>
      token.map((values, head) => {
        const raw = Math.log1p(Math.exp(dt[b]![t]![head]! + bias[head]!));
        const step = Math.min(Math.max(raw, space.limits[0]), space.limits[1]);
        const group = Math.floor((head * groups) / heads);
        return values.map((value, i) => {
          const own = h[b]![head]![i]!;
          if (t < lengths[b]!) {
            for (const n of own.keys()) {
              own[n] = Math.exp(-Math.exp(A[head]!) * step) * own[n]! + step * B[b]![t]![group]![n]! * value;
            }
          }
          return own.reduce((sum, v, n) => sum + v * C[b]![t]![group]![n]!, 0) + D[head]! * value;
        });
      }),
    ),
  );
  return { y, h };
}

test.each([[1], [7], [256], [600]])("%d tokens", (length) => {
  mx.scope(() => {
    const drawn = draw(length);
    const expected = recurrently(drawn, [length, length]);
    const [y, state] = selectiveStateSpace(drawn.inputs, drawn.space, drawn.state, null);
    expectValues(y.toArray(), expected.y.flat(3), { tolerance: 2e-4 });
    expectValues(state.toArray(), expected.h.flat(3), { tolerance: 2e-4 });
  });
});

test("tokens that are not a row's own leave its state as it is", () => {
  mx.scope(() => {
    const drawn = draw(300);
    const lengths = [300, 260];
    const expected = recurrently(drawn, lengths);
    const own = mx.arange(300).less(mx.array(lengths, "int32", [2, 1]));
    const [y, state] = selectiveStateSpace(drawn.inputs, drawn.space, drawn.state, own);
    expectValues(state.toArray(), expected.h.flat(3), { tolerance: 2e-4 });
    expectValues(y.at(1, mx.slice(0, 260)).toArray(), expected.y[1]!.slice(0, 260).flat(2), { tolerance: 2e-4 });
  });
});

test("no state is a state of zeros", () => {
  mx.scope(() => {
    const { inputs, space, state } = draw(9);
    const none = selectiveStateSpace(inputs, space, null, null);
    const zeros = selectiveStateSpace(inputs, space, mx.zerosLike(state), null);
    for (const i of [0, 1] as const) expectValues(none[i].toArray(), zeros[i].toArray() as Float32Array);
  });
});
