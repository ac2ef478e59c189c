/** Rows of keys and values that a token writes in place, only where nobody sees. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { bytesInUse, countExactBytes } from "../../test/exact-bytes";
import { Attention, bits, cachesLeft, random, ready, seedWithoutLeaks, sizes, steps } from "../../test/token-attention";
import * as mx from "../mlx";
import { KVCache, RotatingKVCache } from "./cache";
import { RoPE } from "./rope";
import { attendToken } from "./token-steps";

countExactBytes();
seedWithoutLeaks();
describe("a ring", () => {
  test.each([
    ["that grows", 300, 0, [1, 250]],
    ["that turns", 8, 0, [1, 5]],
    ["that keeps its first", 8, 3, [1, 6]],
    ["that a prompt overflows", 8, 2, [1, 30]],
    ["of two", 2, 1, [1, 1]],
  ] as const)("%s", (_, most, keep, prompt) => {
    const layer = ready(new Attention(sizes, new RoPE(32), { normed: true }), "bfloat16");
    const tokens = most > 100 ? 70 : 20;
    const shapes = [
      [...prompt, 192],
      ...new Array<number[]>(tokens).fill([1, 1, 192]),
      [1, 3, 192],
      [1, 1, 192],
      [1, 1, 192],
    ];
    const inputs = shapes.map((shape) => random(shape, "bfloat16"));
    const [long, short] = [new RotatingKVCache(most, keep), new RotatingKVCache(most, keep)];
    let taken = 0;
    const outputs = inputs.map((x) =>
      mx.scope(() => {
        const out = attendToken(x, layer, short.makeMask(x.dim(1)), short);
        if (out) taken++;
        return bits(out ?? layer.long(x, short));
      }),
    );
    expect<unknown>(outputs).toEqual(steps(layer, long, inputs, "long"));
    expect(cachesLeft(short)).toEqual(cachesLeft(long));
    expect(short.state.slice(2)).toEqual(long.state.slice(2));
    // After several tokens at once the ring is put in order by the next.
    expect(taken).toBeGreaterThanOrEqual(tokens);
    for (const one of [long, short]) one.dispose();
    mx.release(inputs);
    layer.dispose();
  });
});

test.each([1, 2, 3, 8])("a ring keeps a row until a step that reads it is on its way, behind %d tokens", (prompt) => {
  const layer = ready(new Attention(sizes, new RoPE(32)), "float32");
  const inputs = [[1, prompt, 192], ...new Array<number[]>(5).fill([1, 1, 192])].map((shape) =>
    random(shape, "float32"),
  );
  const outputs = (["long", "short"] as const).map((way) => {
    const cache = new RotatingKVCache(4);
    const out = mx.scope(() => {
      mx.eval(layer.long(inputs[0]!, cache));
      // Known tokens: none comes from the one before, and all are computed at the end.
      const steps = inputs.slice(1).map((x) => {
        const short = way === "short" ? attendToken(x, layer, null, cache) : null;
        return short ?? layer.long(x, cache);
      });
      return steps.reverse().map(bits);
    });
    cache.dispose();
    return out;
  });
  expect(outputs[1]).toEqual(outputs[0]!);
  mx.release(inputs);
  layer.dispose();
});

describe("rows in place", () => {
  let layer: Attention;
  let inputs: mx.Tensor[];
  beforeAll(() => {
    layer = ready(new Attention(sizes, new RoPE(32)), "float32");
    inputs = [[1, 4, 192], ...new Array<number[]>(6).fill([1, 1, 192])].map((shape) => random(shape, "float32"));
  });
  afterAll(() => {
    mx.release(inputs);
    layer.dispose();
  });

  test("two conversations that go on from one cache keep their own rows", () => {
    const first = new KVCache();
    const second = new KVCache();
    const lone = new KVCache();
    steps(layer, first, inputs.slice(0, 3), "short");
    second.state = first.state;
    const mine = steps(layer, first, inputs.slice(3, 5), "short");
    const theirs = steps(layer, second, inputs.slice(5, 7), "short");
    expect(mine).toEqual(steps(layer, lone, inputs.slice(0, 5), "long").slice(3));
    lone.trim(2);
    expect(theirs).toEqual(steps(layer, lone, inputs.slice(5, 7), "long"));
    for (const cache of [first, second, lone]) cache.dispose();
  });

  test("whoever reads the rows waits for the one that writes the last of them", () => {
    const [short, long] = [new KVCache(), new KVCache()];
    for (const cache of [short, long]) steps(layer, cache, inputs.slice(0, 2), "long");
    // Its result is thrown away without being evaluated.
    mx.scope(() => void attendToken(inputs[2]!, layer, null, short)!);
    steps(layer, long, inputs.slice(2, 3), "long");
    const rows = (cache: KVCache) =>
      mx.scope(() => (cache.state[0] as mx.Tensor).at(":", ":", mx.slice(0, 6)).toList());
    expect(rows(short)).toEqual(rows(long));
    for (const cache of [short, long]) cache.dispose();
  });

  test("it goes on after a trim, and a packed copy has all rows", () => {
    const [short, long] = [new KVCache(), new KVCache()];
    steps(layer, short, inputs.slice(0, 5), "short");
    steps(layer, long, inputs.slice(0, 5), "long");
    for (const cache of [short, long]) cache.trim(2);
    expect(steps(layer, short, inputs.slice(5, 7), "short")).toEqual(steps(layer, long, inputs.slice(5, 7), "long"));
    const [a, b] = mx.scope(() =>
      [short, long].map((cache) => {
        const packed = cache.toQuantized({ bits: 8, groupSize: 32 });
        const values = mx.treeFlatten(packed.state).map(([, leaf]) => (leaf as mx.Tensor).toList?.() ?? leaf);
        packed.dispose();
        return values;
      }),
    );
    expect(a).toEqual(b);
    for (const cache of [short, long]) cache.dispose();
  });

  test("neither handles nor memory grow", () => {
    const cache = new KVCache();
    const run = (count: number) => {
      for (let i = 0; i < count; i++)
        mx.scope(() => mx.eval(attendToken(inputs[1]!, layer, null, cache) ?? layer.long(inputs[1]!, cache)));
    };
    run(20);
    const [handles, memory] = [mx.liveHandles(), bytesInUse()];
    run(200);
    expect([mx.liveHandles(), bytesInUse()]).toEqual([handles, memory]);
    cache.dispose();
  });
});
