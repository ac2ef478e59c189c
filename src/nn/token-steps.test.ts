/** One token as one operation: the same bits as the long way. */
import { describe, expect, test } from "bun:test";
import { bytesInUse, countExactBytes } from "../../test/exact-bytes";
import { Attention, bits, cachesLeft, random, ready, seedWithoutLeaks, sizes, steps } from "../../test/token-attention";
import * as mx from "../mlx";
import { geglu, swiglu } from "./activations";
import { KVCache } from "./cache";
import { Linear } from "./linear";
import { GatedMLP } from "./mlp";
import { Module, parameter } from "./module";
import { holdGains, LayerNorm, RMSNorm, ZeroCenteredRMSNorm } from "./norms";
import { type Norm, Residual } from "./residual";
import { initializeRope, RoPE, type RotaryEmbedding } from "./rope";
import { attendToken, feedToken, layerToken } from "./token-steps";

countExactBytes();
seedWithoutLeaks();

const packings: [string, mx.Quantization | undefined][] = [
  ["plain", undefined],
  ["4 bits", { bits: 4, groupSize: 64 }],
  ["8 bits in groups of 32", { bits: 8, groupSize: 32 }],
  ["mxfp4", { mode: "mxfp4" }],
  ["nvfp4", { mode: "nvfp4" }],
];

describe.each(["float32", "bfloat16", "float16"] as const)("attention in %s", (dtype) => {
  const kinds: [string, RotaryEmbedding | null, { bias?: boolean; normed?: boolean }][] = [
    ["rotated", new RoPE(32), {}],
    ["half rotated, normed", new RoPE(16, { base: 500, scale: 0.5 }), { normed: true }],
    ["without positions", null, { normed: true }],
    ["with a bias", new RoPE(32), { bias: true }],
  ];
  test.each(
    packings.flatMap(([packing, how]) => kinds.map(([kind, ...rest]) => [packing, kind, how, ...rest] as const)),
  )("%s, %s", (_, __, how, rope, options) => {
    const layer = ready(new Attention(sizes, rope, options), dtype, how);
    const inputs = [[1, 250, 192], ...new Array<number[]>(9).fill([1, 1, 192])].map((shape) => random(shape, dtype));
    const [long, short] = [new KVCache(), new KVCache()];
    expect(steps(layer, short, inputs, "short")).toEqual(steps(layer, long, inputs, "long"));
    expect(short.offset).toBe(259);
    expect(cachesLeft(short)).toEqual(cachesLeft(long));
    const isTaken = mx.scope(() => {
      short.update(...(short.room ?? ([1, 1].map(() => mx.zeros([1, 2, 1, 32], dtype)) as [mx.Tensor, mx.Tensor])));
      return attendToken(inputs[1]!, layer, null, short) !== null;
    });
    // A plain matrix with a bias is MLX's own addmm, which rounds once.
    expect(isTaken).toBe(!(options.bias && !how));
    for (const one of [long, short]) one.dispose();
    mx.release(inputs);
    layer.dispose();
  });

  test("wavelengths of its own", () => {
    const scaling = {
      rope_type: "llama3",
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 64,
    };
    const rope = initializeRope({ dims: 32, base: 10_000, scaling, maxPositions: 512 });
    const layer = ready(new Attention(sizes, rope), dtype, { bits: 4, groupSize: 32 });
    const inputs = [
      [1, 5, 192],
      [1, 1, 192],
      [1, 1, 192],
    ].map((shape) => random(shape, dtype));
    const [long, short] = [new KVCache(), new KVCache()];
    expect(rope.plain?.freqs).toBeDefined();
    expect(steps(layer, short, inputs, "short")).toEqual(steps(layer, long, inputs, "long"));
    for (const one of [long, short]) one.dispose();
    mx.release(inputs);
    layer.dispose();
  });
});

describe("feed-forward", () => {
  const cases = packings.flatMap(([name, how]) =>
    (["float32", "bfloat16", "float16"] as const).flatMap((dtype) => [
      [name, dtype, how, swiglu] as const,
      [name, dtype, how, geglu] as const,
    ]),
  );
  test.each(cases)("%s in %s", (_, dtype, how, activation) => {
    const block = ready(new GatedMLP(192, 320, { activation }), dtype, how);
    const x = random([1, 1, 192], dtype);
    const [short, long] = mx.scope(() => {
      const [gate, up] = [block.gate_proj.forward(x), block.up_proj.forward(x)];
      return [bits(feedToken(x, block)!), bits(block.down_proj.forward(activation(gate, up)))];
    });
    expect(short).toEqual(long);
    mx.release(x);
    block.dispose();
  });

  test("goes the long way for several rows, another activation, layers that are not joined or stood in for", () => {
    const block = ready(new GatedMLP(64, 128), "float32");
    const other = ready(new GatedMLP(64, 128, { activation: (gate, x) => swiglu(gate, x) }), "float32");
    const apart = new GatedMLP(64, 128);
    mx.scope(() => {
      const x = mx.ones([1, 1, 64]);
      expect(feedToken(x, block)).not.toBeNull();
      expect(feedToken(mx.ones([1, 2, 64]), block)).toBeNull();
      expect(feedToken(mx.ones([2, 1, 64]), block)).toBeNull();
      expect(feedToken(x, other)).toBeNull();
      expect(feedToken(x, apart)).toBeNull();
      block.down_proj.forward = () => x;
      expect(feedToken(x, block)).toBeNull();
    });
    for (const one of [block, other, apart]) one.dispose();
  });
});

class Block extends Module {
  readonly plainAttention: Attention;
  readonly plainFeedForward: GatedMLP;
  readonly input_layernorm: Module & Norm;
  readonly post_attention_layernorm: RMSNorm;

  constructor(activation: GatedMLP["activation"], norm: Module & Norm = new RMSNorm(192, 1e-5)) {
    super();
    this.plainAttention = new Attention(sizes, new RoPE(32), { normed: true });
    this.plainFeedForward = new GatedMLP(192, 320, { activation });
    this.input_layernorm = norm;
    this.post_attention_layernorm = new RMSNorm(192, 1e-6);
  }

  long(x: Residual, cache: KVCache): Residual {
    const h = x.plus(this.plainAttention.long(x.branch(this.input_layernorm), cache));
    const normed = h.branch(this.post_attention_layernorm);
    const { gate_proj, up_proj, down_proj, activation } = this.plainFeedForward;
    return h.plus(down_proj.forward(activation(gate_proj.forward(normed), up_proj.forward(normed))));
  }
}

/** With norms of what attention and the feed-forward block give. */
class Sandwich extends Block {
  readonly pre_feedforward_layernorm: ZeroCenteredRMSNorm;
  readonly post_feedforward_layernorm: ZeroCenteredRMSNorm;

  constructor(activation: GatedMLP["activation"]) {
    super(activation, new ZeroCenteredRMSNorm(192, 1e-5));
    this.pre_feedforward_layernorm = new ZeroCenteredRMSNorm(192, 1e-6);
    this.post_feedforward_layernorm = new ZeroCenteredRMSNorm(192, 1e-4);
    mx.scope(() =>
      this.update(
        this.namedParameters().flatMap(([name, { shape }]) =>
          name.includes("layernorm") ? [[name, mx.random.normal({ shape }).multiply(0.3)] as const] : [],
        ),
      ),
    );
  }

  override long(x: Residual, cache: KVCache): Residual {
    const attended = this.plainAttention.long(x.branch(this.input_layernorm), cache);
    const h = x.plus(this.post_attention_layernorm.forward(attended));
    const normed = h.branch(this.pre_feedforward_layernorm);
    const { gate_proj, up_proj, down_proj, activation } = this.plainFeedForward;
    const fed = down_proj.forward(activation(gate_proj.forward(normed), up_proj.forward(normed)));
    return h.plus(this.post_feedforward_layernorm.forward(fed));
  }
}

describe("a whole layer", () => {
  const run = (block: Block, cache: KVCache, inputs: readonly mx.Tensor[], way: "long" | "short") =>
    mx.scope(() => {
      block.long(new Residual(inputs[0]!), cache);
      return inputs.slice(1).map((x, i) => {
        // The first token of a trunk has nothing that is still to be added.
        const stream = i === 0 ? new Residual(x) : new Residual(x, inputs[1]!);
        const short = way === "short" ? layerToken(stream, block, null, cache) : null;
        expect(short !== null).toBe(way === "short");
        const out = short ?? block.long(stream, cache);
        const normed = bits(out.branch(block.post_attention_layernorm));
        return [normed, bits(out.value)];
      });
    });

  /** By both ways; frees the block. */
  function expectTheSame(block: Block, dtype: mx.Dtype): void {
    const inputs = [[1, 7, 192], ...new Array<number[]>(5).fill([1, 1, 192])].map((shape) => random(shape, dtype));
    const [long, short] = [new KVCache(), new KVCache()];
    expect(run(block, short, inputs, "short")).toEqual(run(block, long, inputs, "long"));
    expect(cachesLeft(short)).toEqual(cachesLeft(long));
    for (const one of [long, short]) one.dispose();
    mx.release(inputs);
    block.dispose();
  }

  test.each(
    (["float32", "bfloat16", "float16"] as const).flatMap((dtype) =>
      packings.flatMap(([name, how]) => [[dtype, name, how, swiglu] as const, [dtype, name, how, geglu] as const]),
    ),
  )("in %s, %s", (dtype, _, how, activation) => expectTheSame(ready(new Block(activation), dtype, how), dtype));

  test.each(
    (["float32", "bfloat16", "float16"] as const).flatMap((dtype) =>
      packings.map(([name, how]) => [dtype, name, how] as const),
    ),
  )("with norms behind its halves, in %s, %s", (dtype, _, how) => {
    const block = ready(new Sandwich(geglu), dtype, how);
    holdGains(block);
    expectTheSame(block, dtype);
  });

  test("goes the long way behind another norm, and where a part is not plain", () => {
    const other = ready(new Block(swiglu, new LayerNorm(192)), "float32");
    const plain = ready(new Block(swiglu), "float32");
    const cache = new KVCache();
    mx.scope(() => {
      const x = mx.ones([1, 1, 192]);
      plain.long(new Residual(x), cache);
      expect(layerToken(new Residual(x), other, null, cache)).toBeNull();
      for (const part of ["plainAttention", "plainFeedForward"] as const) {
        const parts = {
          input_layernorm: plain.input_layernorm,
          post_attention_layernorm: plain.post_attention_layernorm,
        };
        const both = { plainAttention: plain.plainAttention, plainFeedForward: plain.plainFeedForward, ...parts };
        expect(layerToken(new Residual(x), { ...both, [part]: null }, null, cache)).toBeNull();
      }
      expect(layerToken(new Residual(x), plain, mx.ones([1, 1]), cache)).toBeNull();
      expect(layerToken(new Residual(mx.ones([1, 2, 192])), plain, null, cache)).toBeNull();
      expect(layerToken(new Residual(x), plain, null, cache)).not.toBeNull();
    });
    for (const one of [other, plain, cache]) one.dispose();
  });
});

describe("what is another since the last token", () => {
  const x = () => mx.full([1, 1, 192], 0.3);
  const tokenOf = (block: Block, cache: KVCache) => layerToken(new Residual(x()), block, null, cache);
  const longOf = (block: Block, cache: KVCache) => block.long(new Residual(x()), cache);

  /** Whether a layer that has computed tokens and is then changed is still one operation; its result is that of the long way. */
  function isTaken(block: Block, change: () => void): boolean {
    const [short, long] = [new KVCache(), new KVCache()];
    for (const cache of [short, long]) mx.scope(() => void bits(longOf(block, cache).value));
    mx.scope(() => expect(bits(tokenOf(block, short)!.value)).toEqual(bits(longOf(block, long).value)));
    change();
    const taken = mx.scope(() => {
      const out = tokenOf(block, short);
      expect(bits((out ?? longOf(block, short)).value)).toEqual(bits(longOf(block, long).value));
      return out !== null;
    });
    for (const cache of [short, long]) cache.dispose();
    return taken;
  }

  const change = (block: Block, name: string) =>
    mx.scope(() => {
      const held = new Map(block.namedParameters()).get(name)!;
      block.update([[name, held.dtype.startsWith("uint") ? mx.rightShift(held, 1) : held.multiply(1.25)]]);
      mx.eval(block.parameters());
    });

  test.each(packings)("each tensor, %s", (_, how) => {
    const block = ready(new Block(swiglu), "float32", how);
    const bytes = bytesInUse();
    for (const [name] of block.namedParameters()) {
      // With such a tensor layers that were one go their own ways.
      if (/[qkv]_proj|gate_proj|up_proj/.test(name)) {
        const joined = ready(new Block(swiglu), "float32", how);
        expect({ name, taken: isTaken(joined, () => change(joined, name)) }).toEqual({ name, taken: false });
        joined.dispose();
      } else {
        expect({ name, taken: isTaken(block, () => change(block, name)) }).toEqual({ name, taken: true });
      }
    }
    // Nobody keeps what was replaced.
    expect(bytesInUse()).toBe(bytes);
    block.dispose();
  });

  test.each<[string, (block: Block) => void, boolean]>([
    [
      "a layer",
      ({ plainFeedForward }) => {
        plainFeedForward.down_proj.dispose();
        plainFeedForward.down_proj = new Linear(320, 192, { bias: false });
      },
      true,
    ],
    [
      "a layer's way",
      ({ plainFeedForward: { down_proj } }) => {
        down_proj.forward = (x) => x.at("...", mx.slice(0, 192));
      },
      false,
    ],
    [
      "a norm's way",
      ({ post_attention_layernorm }) => {
        post_attention_layernorm.forward = (x) => x;
      },
      false,
    ],
    ["the activation", ({ plainFeedForward }) => Object.assign(plainFeedForward, { activation: geglu }), true],
    ["the factor on scores", ({ plainAttention }) => Object.assign(plainAttention, { scale: 2 }), true],
    ["the rotation", ({ plainAttention }) => Object.assign(plainAttention, { rope: new RoPE(16, { base: 70 }) }), true],
    ["a norm's eps", ({ post_attention_layernorm }) => Object.assign(post_attention_layernorm, { eps: 0.1 }), true],
    ["the eps of norms over heads", ({ plainAttention: { q_norm } }) => Object.assign(q_norm!, { eps: 0.1 }), true],
    [
      "a bias",
      ({ plainFeedForward: { down_proj } }) => Object.assign(down_proj, { bias: parameter(mx.full([192], 0.1)) }),
      true,
    ],
    [
      "the norms over heads",
      ({ plainAttention }) => {
        for (const norm of [plainAttention.q_norm, plainAttention.k_norm]) norm?.dispose();
        Object.assign(plainAttention, { q_norm: undefined, k_norm: undefined });
      },
      true,
    ],
  ])("%s", (_, change, taken) => {
    const block = ready(new Block(swiglu), "float32", { bits: 4, groupSize: 32 });
    expect(isTaken(block, () => mx.scope(() => void change(block)))).toBe(taken);
    block.dispose();
  });

  test("attention and feed-forward by themselves", () => {
    const block = ready(new Block(swiglu), "float32");
    const { plainAttention: attention, plainFeedForward: feed } = block;
    const [short, long] = [new KVCache(), new KVCache()];
    mx.scope(() => {
      for (const cache of [short, long]) mx.eval(attention.long(x(), cache));
      const step = () => {
        expect(bits(attendToken(x(), attention, null, short)!)).toEqual(bits(attention.long(x(), long)));
        const [gate, up] = [feed.gate_proj.forward(x()), feed.up_proj.forward(x())];
        expect(bits(feedToken(x(), feed)!)).toEqual(bits(feed.down_proj.forward(swiglu(gate, up))));
      };
      step();
      for (const layer of [attention.o_proj, feed.down_proj] as Linear[])
        layer.update([["weight", mx.contiguous(layer.weight.multiply(-2))]]);
      mx.eval(block.parameters());
      step();
    });
    for (const one of [short, long, block]) one.dispose();
  });
});
