/** Nothing may grow with work done: handles, closures, memory; and no view of native memory may go stale. */
import { expect, test } from "bun:test";
import type { Drafter } from "../src/generate/draft/drafter";
import { HeadDrafter } from "../src/generate/draft/head-drafter";
import { draftedSteps } from "../src/generate/speculative";
import { generateSteps } from "../src/generate/step";
import * as mx from "../src/mlx";
import { mail } from "../src/mlx/mailbox";
import { bytesInUse, countExactBytes } from "./exact-bytes";
import { tinyDraftHead, tinyHybrid, tinyMamba, tinyModel } from "./tiny-model";

countExactBytes();

test("200,000 calls through kept views read what was written", () => {
  // A typed array whose storage the JIT moves would read back old numbers (its address is handed over once).
  const x = mx.ones([2, 3, 5]);
  let stale = 0;
  for (let i = 0; i < 200_000; i++) {
    const y = x.reshape([1 + (i % 2) * 4, 30 / (1 + (i % 2) * 4)]);
    const [rows, columns] = y.shape;
    if (rows !== 1 + (i % 2) * 4 || rows * columns! !== 30 || mail[1] !== rows) stale += 1;
    y.dispose();
  }
  x.dispose();
  expect(stale).toBe(0);
});

test("gradients leave no tensor and no function behind", () => {
  const w = mx.random.normal({ shape: [16, 16] });
  mx.eval(w, mx.random.state.get());
  const loss = (p: mx.Tensor) => p.matmul(p).square().sum();
  const step = () =>
    mx.scope(() => {
      const [value, gradient] = mx.valueAndGrad(loss)(w);
      mx.eval(value, gradient);
    });
  step();
  const before = [mx.liveHandles(), mx.liveFunctions()];
  for (let i = 0; i < 500; i++) step();
  expect([mx.liveHandles(), mx.liveFunctions()]).toEqual(before);
  w.dispose();
});

test("checkpoints, custom functions and vmap leave nothing behind", () => {
  const x = mx.ones([4]);
  const square = mx.customFunction((a) => a.square(), { vjp: ([a], [c]) => [a!.multiply(2).multiply(c!)] });
  const twice = mx.checkpoint((a: mx.Tensor) => a.multiply(2));
  const each = mx.vmap((a) => a.add(1));
  const step = () =>
    mx.scope(() => {
      const gradient = mx.grad((a: mx.Tensor) => square(twice(a))[0]!.sum())(x) as mx.Tensor;
      mx.eval(gradient, each(x));
      expect(gradient.toList()).toEqual([8, 8, 8, 8]);
    });
  step();
  const before = [mx.liveHandles(), mx.liveFunctions()];
  for (let i = 0; i < 200; i++) step();
  expect([mx.liveHandles(), mx.liveFunctions()]).toEqual(before);
  x.dispose();
});

test("memory in use returns to where it was", () => {
  const before = bytesInUse();
  for (let i = 0; i < 50; i++) {
    mx.scope(() => {
      mx.eval(mx.ones([256, 256]).matmul(mx.ones([256, 256])));
    });
  }
  expect(bytesInUse()).toBe(before);
});

const windows = { sliding_window: 16, layer_types: ["sliding_attention", "sliding_attention"] };

test.each([
  ["full attention", {}, 2 * 2 * 2 * 8 * 4],
  ["sliding windows", windows, 0],
  ["recurrent state", tinyMamba, 0],
  ["recurrent state and full attention", tinyHybrid, 2 * 2 * 8 * 4],
])(
  "700 steps of decoding with %s leave handles and memory as they are, but for the cache",
  async (_, overrides, bytes) => {
    const model = await tinyModel(overrides);
    const seen: { handles: number; memory: number }[] = [];
    let count = 0;
    for await (const step of generateSteps(model, [1, 2, 3], { maxTokens: 700 })) {
      expect(step.logprobs).toBeNull();
      if (++count % 300 === 0) seen.push({ handles: mx.liveHandles(), memory: bytesInUse() });
    }
    const [first, last] = seen as [(typeof seen)[0], (typeof seen)[0]];
    expect(last.handles).toBe(first.handles);
    // Buffers grow by 256 tokens at a time.
    expect(last.memory - first.memory).toBe(256 * bytes);
    model.dispose();
  },
);

/** Drafts of which every other one is right. */
function everyOther(answer: readonly number[], promptLength: number, inner?: Drafter): Drafter {
  let turn = 0;
  return {
    name: "a test",
    flag: "--test",
    reader: inner?.reader,
    propose(history, count) {
      inner?.propose(history, count);
      const next = answer.slice(history.length - promptLength).slice(0, count);
      return next.map((token, i) => (i < turn % (count + 1) ? token : token + 1));
    },
    settle(history, checked) {
      turn += 1;
      inner?.settle(history, checked);
    },
    dispose: () => inner?.dispose(),
  };
}

test.each([
  ["sliding windows", windows, false],
  ["recurrent state", tinyMamba, false],
  ["recurrent state and full attention", tinyHybrid, false],
  ["draft layers", tinyHybrid, true],
])(
  "240 tokens with drafts and %s leave handles and memory as they are, but for the cache",
  async (_, overrides, own) => {
    const model = await tinyModel(overrides);
    const answer: number[] = [];
    for await (const { token } of generateSteps(model, [1, 2, 3], { maxTokens: 250 })) answer.push(token);
    const head = own ? await tinyDraftHead(model) : null;
    const inner = head ? new HeadDrafter(head, [1, 2, 3], { cached: 0, tokens: 3 }) : undefined;
    const drafter = everyOther(answer, 3, inner);
    const seen: { handles: number; memory: number }[] = [];
    let count = 0;
    for await (const step of draftedSteps(model, drafter, [1, 2, 3], { maxTokens: 240, numDraftTokens: 3 })) {
      expect(step.token).toBe(answer[count]!);
      // The last token of a pass in which all drafts were right, so that nothing is left to be read again.
      if (++count % 6 === 0) seen.push({ handles: mx.liveHandles(), memory: bytesInUse() });
    }
    // A pass that is under way holds a few more or fewer.
    const late = seen.slice(seen.length / 4);
    expect(
      Math.max(...late.map(({ handles }) => handles)) - Math.min(...late.map(({ handles }) => handles)),
    ).toBeLessThan(12);
    expect(late.at(-1)!.memory - late[0]!.memory).toBeLessThan(8 * 1024);
    head?.dispose();
    model.dispose();
  },
);
