/** The gated delta rule by blocks against its recurrence, one token after the other. */
import { expect, test } from "bun:test";
import { expectValues } from "../../test/parity/fixtures";
import type { Tensor } from "../mlx";
import * as mx from "../mlx";
import { type GatedDeltaInputs, gatedDeltaRule, ofLength } from ".";

const [batch, keyHeads, valueHeads, keyDims, valueDims] = [2, 2, 4, 16, 24];

type Draw = [q: Tensor, k: Tensor, v: Tensor, strength: Tensor, decay: Tensor, state: Tensor];

function draw(length: number): Draw {
  mx.random.seed(length);
  const normal = (...shape: number[]) => mx.random.normal({ shape });
  return [
    ofLength(normal(batch, length, keyHeads, keyDims), 0.25),
    ofLength(normal(batch, length, keyHeads, keyDims), 1),
    normal(batch, length, valueHeads, valueDims),
    normal(batch, length, valueHeads).sigmoid(),
    normal(batch, length, valueHeads).exp().negative(),
    normal(batch, valueHeads, valueDims, keyDims),
  ];
}

const inputsOf = ([q, k, v, strength, decay]: readonly Tensor[]): GatedDeltaInputs => ({
  q: q!,
  k: k!,
  v: v!,
  strength: strength!,
  decay: decay!,
});

const atOnce = (tensors: readonly Tensor[], own: Tensor | null = null) =>
  gatedDeltaRule(inputsOf(tensors), tensors[5]!, own);

function oneByOne(tensors: readonly Tensor[], own: Tensor | null = null): [Tensor, Tensor] {
  const token = (x: Tensor, t: number) => mx.sliceAxis(x, 1, t, t + 1);
  let state = tensors[5]!;
  const ys: Tensor[] = [];
  for (let t = 0; t < tensors[0]!.dim(1); t++) {
    const inputs = inputsOf(tensors.slice(0, 5).map((x) => token(x, t)));
    const [y, next] = gatedDeltaRule(inputs, state, own && token(own, t));
    ys.push(y);
    state = next;
  }
  return [mx.concatenate(ys, { axis: 1 }), state];
}

const expectClose = (actual: Tensor, expected: Tensor, tolerance = 2e-5) => {
  expect(actual.shape).toEqual(expected.shape);
  expectValues(actual.flatten().toArray(), expected.flatten().toArray() as Float32Array, { tolerance });
};

test.each([2, 5, 63, 64, 65, 200])("%i tokens", (length) => {
  mx.scope(() => {
    const tensors = draw(length);
    const [y, state] = atOnce(tensors);
    const [expected, last] = oneByOne(tensors);
    expectClose(y, expected);
    expectClose(state, last);
  });
});

test("one token is the rule as it is written", () => {
  mx.scope(() => {
    const [q, k, v, strength, decay, state] = draw(1);
    const column = (x: Tensor, heads: number) =>
      mx.repeat(x.reshape(batch, heads, -1, 1), valueHeads / heads, { axis: 1 });
    const perHead = (x: Tensor) => x.reshape(batch, valueHeads, 1, 1);
    const faded = state.multiply(perHead(decay.exp()));
    const u = column(v, valueHeads)
      .subtract(faded.matmul(column(k, keyHeads)))
      .multiply(perHead(strength));
    const next = faded.add(u.matmul(column(k, keyHeads).swapaxes(-1, -2)));
    const [y, after] = atOnce([q, k, v, strength, decay, state]);
    expectClose(after, next);
    expectClose(y, next.matmul(column(q, keyHeads)).reshape(y.shape));
  });
});

test("tokens that are not a row's own leave its state alone", () => {
  mx.scope(() => {
    const length = 70;
    const tensors = draw(length);
    const padding = [3, 0];
    const own = mx.arange(length).greaterEqual(mx.array(padding, "int32", [batch, 1]));
    const [y, state] = atOnce(tensors, own);
    const [expected, last] = oneByOne(tensors, own);
    const first = (x: Tensor) => mx.sliceAxis(x, 1, padding[0]!, length);
    expectClose(first(y), first(expected));
    expectClose(state, last);
    // The same row without its padding.
    const alone = [...tensors.slice(0, 5).map(first), tensors[5]!];
    expectClose(mx.sliceAxis(first(y), 0, 0, 1), mx.sliceAxis(atOnce(alone)[0], 0, 0, 1));
  });
});

test("gradients are those of the recurrence", () => {
  mx.scope(() => {
    const tensors = draw(67);
    const loss = (form: typeof atOnce) => (inputs: Tensor[]) => {
      const [y, state] = form(inputs);
      return y.square().sum().add(state.sum());
    };
    const [value, gradients] = mx.valueAndGrad(loss(atOnce))([...tensors]) as [Tensor, Tensor[]];
    const [wanted, expected] = mx.valueAndGrad(loss(oneByOne))([...tensors]) as [Tensor, Tensor[]];
    expectClose(value, wanted);
    for (const [i, gradient] of gradients.entries()) expectClose(gradient, expected[i]!, 1e-4);
  });
});

test("keys that are all alike and states that vanish cost no precision", () => {
  mx.scope(() => {
    const [q, k, v, , , state] = draw(128);
    const same = mx.broadcastTo(mx.sliceAxis(k, 1, 0, 1), k.shape);
    const shape = [batch, 128, valueHeads];
    const jumps = mx.where(mx.arange(128).remainder(9).equal(0), -300, -0.001).expandDims(-1);
    const tensors = [q, same, v, mx.full(shape, 0.999, "float32"), mx.broadcastTo(jumps, shape), state];
    const [y, last] = atOnce(tensors);
    const [expected, wanted] = oneByOne(tensors);
    expectClose(y, expected, 1e-4);
    expectClose(last, wanted, 1e-4);
    const [, gradients] = mx.valueAndGrad((inputs: Tensor[]) => atOnce(inputs)[0].sum())([...tensors]) as [
      Tensor,
      Tensor[],
    ];
    for (const gradient of gradients) expect(mx.isfinite(gradient).all().item()).toBeTruthy();
  });
});

test("half precision is computed in float32, and rounded once", () => {
  mx.scope(() => {
    const tensors = draw(40).map((x, i) => (i < 4 ? x.astype("bfloat16") : x));
    const [y, state] = atOnce(tensors);
    const [exact, last] = atOnce(tensors.map((x) => x.astype("float32")));
    expect([y.dtype, state.dtype]).toEqual(["bfloat16", "float32"]);
    expectClose(y.astype("float32"), exact.astype("bfloat16").astype("float32"), 0);
    expectClose(state, last, 0);
  });
});
