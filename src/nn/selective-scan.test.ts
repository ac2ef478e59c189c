/** The scan on two levels against its recurrence, one token after the other. */
import { expect, test } from "bun:test";
import { expectValues } from "../../test/parity/fixtures";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { type SelectiveScanInputs, selectiveScan } from ".";

const [batch, channels, stateSize] = [2, 6, 4];

function draw(length: number) {
  mx.random.seed(length);
  const normal = (...shape: number[]) => mx.random.normal({ shape });
  const inputs: SelectiveScanInputs = {
    x: normal(batch, length, channels),
    // Some fade within one token, some hardly at all.
    steps: normal(batch, length, channels).multiply(2).exp(),
    B: normal(batch, length, stateSize),
    C: normal(batch, length, stateSize),
  };
  const rates = { A_log: normal(channels, stateSize), D: normal(channels) };
  return { inputs, rates, state: normal(batch, channels, stateSize) };
}

function oneByOne({ inputs, rates, state }: ReturnType<typeof draw>): [Tensor, Tensor] {
  let carried = state;
  const ys: Tensor[] = [];
  for (let t = 0; t < inputs.x.dim(1); t++) {
    const { x, steps, B, C } = inputs;
    const [at, dt, b, c] = [x, steps, B, C].map((tensor) => tensor.at(mx.slice(), t)) as [
      Tensor,
      Tensor,
      Tensor,
      Tensor,
    ];
    const fading = dt.expandDims(-1).multiply(rates.A_log.exp()).negative().exp();
    carried = carried.multiply(fading).add(dt.multiply(at).expandDims(-1).multiply(b.expandDims(1)));
    ys.push(carried.multiply(c.expandDims(1)).sum({ axis: -1 }).add(rates.D.multiply(at)));
  }
  return [mx.stack(ys, { axis: 1 }), carried];
}

const expectClose = (actual: Tensor, expected: Tensor) => {
  expect(actual.shape).toEqual(expected.shape);
  expectValues(actual.flatten().toArray(), expected.flatten().toArray() as Float32Array, { tolerance: 2e-5 });
};

test.each([1, 2, 15, 16, 17, 256, 300])("%i tokens", (length) => {
  mx.scope(() => {
    const drawn = draw(length);
    const [y, state] = selectiveScan(drawn.inputs, drawn.rates, drawn.state, null);
    const [expected, last] = oneByOne(drawn);
    expectClose(y, expected);
    expectClose(state, last);
  });
});

test("what is not a row's own leaves the state as it is", () => {
  mx.scope(() => {
    const { inputs, rates, state } = draw(20);
    const own = mx.arange(20).greaterEqual(mx.array([7, 0], "int32", [2, 1]));
    const [y, after] = selectiveScan(inputs, rates, state, own);
    const tail = Object.fromEntries(
      Object.entries(inputs).map(([name, x]) => [name, mx.sliceAxis(mx.sliceAxis(x, 0, 0, 1), 1, 7, 20)]),
    ) as unknown as SelectiveScanInputs;
    const [alone, last] = selectiveScan(tail, rates, mx.sliceAxis(state, 0, 0, 1), null);
    expectClose(mx.sliceAxis(mx.sliceAxis(y, 0, 0, 1), 1, 7, 20), alone);
    expectClose(mx.sliceAxis(after, 0, 0, 1), last);
  });
});
