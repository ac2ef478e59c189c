/** What the library makes of descriptions that are none: an error in words, and nothing is left behind. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import * as mx from ".";

const { fast } = mx;
const norm = () => ({ weight: mx.ones([64]), eps: 1e-5 });
const matrix = (rows: number, columns: number) => ({ matrix: { weight: mx.ones([rows, columns]) }, packing: null });

const layer = (): mx.fast.TokenLayer => ({
  first: norm(),
  attention: {
    joint: [matrix(128, 64)],
    last: matrix(64, 64),
    heads: 2,
    kvHeads: 1,
    rotation: { dims: 32, base: 10_000, scale: 1, freqs: null },
    scale: 0.2,
    group: null,
  },
  second: norm(),
  feed: { joint: [matrix(192, 64)], last: matrix(64, 96), kind: "silu" },
});

let live: number;
beforeAll(() => {
  live = mx.liveHandles();
});
afterAll(() => expect(mx.liveHandles()).toBe(live));

describe.skipIf(mx.defaultDevice() !== "cpu")("a description", () => {
  const step = (words: readonly number[], keys = mx.zeros([1, 1, 8, 32])) => {
    const rows = { keys, values: mx.zeros(keys.shape), used: 0, row: 0, offset: 0 };
    return fast.layerToken(mx.ones([1, 1, 64]), null, words, rows);
  };

  test("is taken as it is, also once more", () => {
    mx.scope(() => {
      const described = fast.describeLayer(layer());
      const [first, again] = [step(described)!, step(described)!];
      expect(first[1].toList()).toEqual(again[1].toList());
    });
  });

  test.each([
    ["", () => null],
    [" with norms behind", () => ({ attention: norm(), feed: norm() })],
  ])("that ends too early, at each word%s", (_, behind) => {
    mx.scope(() => {
      const described = fast.describeLayer({ ...layer(), behind: behind() });
      expect(step(described)).not.toBeNull();
      for (let length = 0; length < described.length; length++)
        expect(() => step(described.slice(0, length))).toThrow("ends too early");
    });
  });

  test("with more than there is to say", () => {
    mx.scope(() => {
      const described = fast.describeLayer(layer());
      expect(() => step([...described, 0])).toThrow("more words than");
      expect(() => fast.feedToken(mx.ones([1, 1, 64]), [...fast.describeFeedForward(layer().feed), 7])).toThrow(
        "more words than",
      );
    });
  });

  test("of tensors that are gone", () => {
    const described = mx.scope(() => fast.describeLayer(layer()) as readonly number[]);
    mx.scope(() => expect(() => step(described)).toThrow("used after it was freed"));
  });

  test("of a matrix in a mode that there is not", () => {
    mx.scope(() => {
      const { feed } = layer();
      // Where it says how the first matrix is packed: behind the kind of gate and the number of matrices.
      for (const mode of [-1, 5, 1 << 30]) {
        const described = fast.describeFeedForward(feed).with(4, mode);
        expect(() => fast.feedToken(mx.ones([1, 1, 64]), described)).toThrow(`packed in mode ${mode}`);
      }
    });
  });

  test("whose words are any numbers", () => {
    mx.scope(() => {
      const described = fast.describeLayer(layer());
      for (const word of [-1, 0, 1, 3, 64, 0x7fffffff, -0x80000000]) {
        for (let i = 0; i < described.length; i++) {
          try {
            const parts = step(described.with(i, word));
            // It may be another layer, which is computed.
            if (parts) mx.eval(parts);
          } catch (error) {
            expect(error).toBeInstanceOf(Error);
            expect((error as Error).message).not.toBe("");
          }
        }
      }
    });
  });

  test("of what a GPU alone has kernels for is read here too", () => {
    mx.scope(() => {
      const { attention } = layer();
      const keys = mx.zeros([3, 1, 8, 32]);
      const rows = { keys, values: keys, used: 2, starts: [0, 0, 1], positions: [2, 2, 1] };
      const heads = fast.describeHeads(attention);
      const attend = (words: readonly number[]) => fast.attendRows(mx.ones([3, 1, 128]), words, rows);
      const stacks = { gate: matrix(96, 64), up: matrix(96, 64), down: matrix(64, 96), kind: "gelu" } as const;
      const experts = fast.describeExperts(stacks);
      const [chosen, weights] = [mx.array([[[0, 1]]], "uint32"), mx.ones([1, 1, 2])];
      const route = (words: readonly number[]) => fast.expertsToken(mx.ones([1, 1, 64]), chosen, weights, words);
      for (const [read, words] of [
        [attend, heads],
        [route, experts],
      ] as const) {
        expect(read(words)).toBeNull();
        expect(() => read(words.slice(0, -1))).toThrow("ends too early");
        expect(() => read([...words, 0])).toThrow("more words than");
      }
      expect(fast.layerRows(mx.ones([3, 1, 64]), null, fast.describeLayer(layer()), rows)).toBeNull();
    });
  });

  test("for keys of other axes", () => {
    mx.scope(() => expect(() => step(fast.describeLayer(layer()), mx.zeros([1, 8, 32]))).toThrow("keys have 3 axes"));
  });
});
