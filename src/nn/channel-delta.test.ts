/** The delta rule with a decay for each channel: by blocks against its recurrence, one token after the other. */
import { expect, test } from "bun:test";
import { expectValues } from "../../test/parity/fixtures";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { type ChannelDeltaInputs, channelDeltaRule, ofLength } from ".";

const [batch, heads, keyDims, valueDims] = [2, 3, 16, 24];

/** @param fading how many e-folds a channel fades in a token, at most about four times this */
function draw(length: number, { fading = 0.3, separate = true } = {}) {
  mx.random.seed(length);
  const normal = (...shape: number[]) => mx.random.normal({ shape });
  const keys = () => ofLength(normal(batch, length, heads, keyDims), 1);
  const k = keys();
  const strength = normal(batch, length, heads, 1).sigmoid();
  const read = separate ? keys() : k;
  const inputs: ChannelDeltaInputs = {
    r: normal(batch, length, heads, keyDims),
    k,
    v: normal(batch, length, heads, valueDims),
    a: read.multiply(strength).negative(),
    b: separate ? read : undefined,
    decay: normal(batch, length, heads, keyDims).exp().multiply(-fading),
  };
  return { inputs, state: normal(batch, heads, valueDims, keyDims) };
}

const part = ({ b, ...inputs }: ChannelDeltaInputs, cut: (x: Tensor) => Tensor): ChannelDeltaInputs => ({
  r: cut(inputs.r),
  k: cut(inputs.k),
  v: cut(inputs.v),
  a: cut(inputs.a),
  b: b && cut(b),
  decay: cut(inputs.decay),
});

function oneByOne({ inputs, state }: ReturnType<typeof draw>): [Tensor, Tensor] {
  let carried = state;
  const ys: Tensor[] = [];
  for (let t = 0; t < inputs.r.dim(1); t++) {
    const [y, next] = channelDeltaRule(
      part(inputs, (x) => mx.sliceAxis(x, 1, t, t + 1)),
      carried,
      null,
    );
    ys.push(y);
    carried = next;
  }
  return [mx.concatenate(ys, { axis: 1 }), carried];
}

const expectClose = (actual: Tensor, expected: Tensor) => {
  expect(actual.shape).toEqual(expected.shape);
  expectValues(actual.flatten().toArray(), expected.flatten().toArray() as Float32Array, { tolerance: 2e-5 });
};

const ways = [2, 5, 63, 64, 65, 150].flatMap((length) => [
  { length, separate: true, fading: 0.3 },
  { length, separate: false, fading: 0.3 },
  // A channel that forgets all within a token: its decays' product over a block is below float32's least number.
  { length, separate: false, fading: 40 },
]);

test.each(ways)("$length tokens, a writer of changes of its own: $separate, fading by $fading", (way) => {
  mx.scope(() => {
    const drawn = draw(way.length, way);
    const [y, state] = channelDeltaRule(drawn.inputs, drawn.state, null);
    const [expected, last] = oneByOne(drawn);
    expectClose(y, expected);
    expectClose(state, last);
  });
});

test.each([true, false])("one token is the rule as it is written, a writer of changes of its own: %p", (separate) => {
  mx.scope(() => {
    const { inputs, state } = draw(1, { separate });
    const column = (x: Tensor) => x.reshape(batch, heads, -1, 1);
    const row = (x: Tensor) => x.reshape(batch, heads, 1, -1);
    const { r, k, v, a, b, decay } = inputs;
    const faded = state.multiply(row(decay).exp());
    const next = faded.add(faded.matmul(column(a)).matmul(row(b ?? k))).add(column(v).matmul(row(k)));
    const [y, after] = channelDeltaRule(inputs, state, null);
    expectClose(after, next);
    expectClose(y, next.matmul(column(r)).reshape(y.shape));
  });
});

test("what is not a row's own leaves the state as it is", () => {
  mx.scope(() => {
    const { inputs, state } = draw(70);
    const own = mx.arange(70).greaterEqual(mx.array([9, 0], "int32", [2, 1]));
    const [y, after] = channelDeltaRule(inputs, state, own);
    const first = (x: Tensor) => mx.sliceAxis(x, 0, 0, 1);
    const [alone, last] = channelDeltaRule(
      part(inputs, (x) => mx.sliceAxis(first(x), 1, 9, 70)),
      first(state),
      null,
    );
    expectClose(mx.sliceAxis(first(y), 1, 9, 70), alone);
    expectClose(first(after), last);
  });
});
