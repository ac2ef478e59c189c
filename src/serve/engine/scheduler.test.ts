/** Places in a batch: who gets one, who waits, who is sent away. */
import { describe, expect, test } from "bun:test";
import { tinyModel } from "../../../test/tiny-model";
import * as mx from "../../mlx";
import type { ApiError } from "../api-error";
import { CacheSizes } from "./cache-sizes";
import { MemoryBudget } from "./memory-budget";
import { adaptivePace } from "./pace";
import { type Place, Scheduler, type SchedulerOptions } from "./scheduler";

async function scheduler(options: Partial<SchedulerOptions> & { free?: number } = {}) {
  const model = await tinyModel();
  const budget = new MemoryBudget(options.free ?? 1e12);
  const made = new Scheduler(model, { budget, ...options });
  const dispose = () => {
    made.dispose();
    model.dispose();
  };
  return { made, budget, sizes: new CacheSizes(model), [Symbol.dispose]: dispose };
}

/** Whether a promise has come true by now. */
async function isDone(promise: Promise<unknown>): Promise<boolean> {
  const late = Bun.sleep(1).then(() => false);
  return Promise.race([promise.then(() => true), late]);
}

describe("places", () => {
  test("as many as run side by side; the others wait in their order", async () => {
    using all = await scheduler({ decodeConcurrency: 2, promptConcurrency: 1 });
    const { made } = all;
    const [first, second] = [await made.enter(5, 5), await made.enter(5, 5)];
    const third = made.enter(5, 5);
    const fourth = made.enter(5, 5);
    expect(await isDone(third)).toBe(false);
    expect([made.running, made.waiting]).toEqual([2, 2]);
    first.leave();
    first.leave();
    expect(await isDone(third)).toBe(true);
    expect(await isDone(fourth)).toBe(false);
    second.leave();
    (await third).leave();
    (await fourth).leave();
    expect([made.running, made.waiting]).toEqual([0, 0]);
  });

  test("it is quiet once all that run have left", async () => {
    using all = await scheduler({ decodeConcurrency: 2, promptConcurrency: 1 });
    const { made } = all;
    expect(await isDone(made.quiet())).toBe(true);
    const [first, second] = [await made.enter(5, 5), await made.enter(5, 5)];
    const quiet = made.quiet();
    first.leave();
    expect(await isDone(quiet)).toBe(false);
    second.leave();
    expect(await isDone(quiet)).toBe(true);
  });

  test("who gives up while waiting takes none", async () => {
    using all = await scheduler({ decodeConcurrency: 1, promptConcurrency: 1 });
    const { made } = all;
    const first = await made.enter(5, 5);
    const controller = new AbortController();
    const given = made.enter(5, 5, controller.signal);
    const last = made.enter(5, 5);
    controller.abort();
    (await given).leave();
    expect([made.running, made.waiting]).toEqual([1, 1]);
    first.leave();
    (await last).leave();
    (await made.enter(5, 5, controller.signal)).leave();
    expect(made.running).toBe(0);
  });

  test("a full queue sends away, and says when to come again", async () => {
    using all = await scheduler({ decodeConcurrency: 1, promptConcurrency: 1, maxQueue: 2 });
    const { made } = all;
    const places: Promise<Place>[] = [];
    for (let i = 0; i < 3; i++) {
      made.check(5, 5);
      places.push(made.enter(5, 5));
    }
    let error: ApiError | undefined;
    try {
      made.check(5, 5);
    } catch (thrown) {
      error = thrown as ApiError;
    }
    expect(error).toMatchObject({ status: 429, facts: { code: "queue_full" } });
    expect(error!.facts.retryAfter).toBeGreaterThanOrEqual(1);
    for (const place of places) (await place).leave();
    expect(() => made.check(5, 5, 3)).not.toThrow();
    expect(() => made.check(5, 5, 4)).toThrow(/waiting/);
  });
});

describe("memory", () => {
  test("is held for a batch that is as long as its longest", async () => {
    using all = await scheduler();
    const { made, budget, sizes } = all;
    const short = await made.enter(100, 50);
    const alone = budget.lacking({}, 0) + budget.limit;
    expect(alone).toBe(sizes.of(150));
    const long = await made.enter(5000, 50);
    expect(budget.lacking({}, 0) + budget.limit).toBeGreaterThanOrEqual(2 * sizes.of(5050));
    long.leave();
    expect(budget.lacking({}, 0) + budget.limit).toBe(alone);
    short.leave();
    expect(budget.lacking({}, 0) + budget.limit).toBe(0);
  });

  test("one that never fits is refused; one that fits later waits, and small ones pass it a few times", async () => {
    const model = await tinyModel();
    const sizes = new CacheSizes(model);
    const free = sizes.of(6000);
    model.dispose();
    using all = await scheduler({ free });
    const { made } = all;
    expect(() => made.check(7000, 10)).toThrow(/memory for their cache/);
    const running = await made.enter(1000, 0);
    const large = made.enter(5500, 0);
    expect(await isDone(large)).toBe(false);
    for (let i = 0; i < 16; i++) (await made.enter(200, 0)).leave();
    const late = made.enter(200, 0);
    expect(await isDone(late)).toBe(false);
    running.leave();
    expect(await isDone(large)).toBe(true);
    (await large).leave();
    (await late).leave();
  });

  test("what is held in case of use is given back first", async () => {
    const asked: number[] = [];
    const owner = {};
    const model = await tinyModel();
    const sizes = new CacheSizes(model);
    const budget = new MemoryBudget(sizes.of(6000));
    const onShort = (bytes: number) => {
      asked.push(bytes);
      budget.hold(owner, 0);
    };
    const made = new Scheduler(model, { budget, onShort });
    budget.hold(owner, sizes.of(4000));
    const first = await made.enter(300, 0);
    expect(asked).toEqual([]);
    const second = await made.enter(1500, 0);
    expect(asked).toHaveLength(1);
    first.leave();
    second.leave();
    made.dispose();
    model.dispose();
  });
});

test("sizes of caches grow by tokens, and stop at a window", async () => {
  const before = mx.liveHandles();
  for (const [overrides, grows] of [
    [{}, true],
    [{ num_hidden_layers: 2, sliding_window: 64, layer_types: ["sliding_attention", "sliding_attention"] }, false],
  ] as const) {
    const model = await tinyModel(overrides);
    const sizes = new CacheSizes(model);
    expect(sizes.of(10)).toBeGreaterThan(0);
    expect(sizes.of(100_000) > 3 * sizes.of(20_000)).toBe(grows);
    model.dispose();
  }
  expect(mx.liveHandles()).toBe(before);
});

test("the pace follows what reading takes, and is slower beside answers", () => {
  const pace = adaptivePace();
  const work = { promptTokens: 0, promptTime: 0, generationTokens: 0, generationSteps: 0, generationTime: 0 };
  const first = pace(work, true);
  expect(first).toBeGreaterThan(0);
  work.promptTokens = 1000;
  work.promptTime = 1;
  expect(pace(work, true)).toBe(250);
  expect(pace(work, false)).toBe(500);
  work.generationSteps = 1;
  work.generationTime = 0.2;
  expect(pace(work, true)).toBe(800);
  work.promptTokens += 1000;
  work.promptTime += 100;
  expect(pace(work, false)).toBe(16);
});

test("a slow beginning does not slow down what follows", () => {
  const pace = adaptivePace();
  const work = { promptTokens: 0, promptTime: 0, generationTokens: 0, generationSteps: 0, generationTime: 0 };
  let steps = 0;
  // Five seconds for the first tokens, then a hundredth and a token's time each.
  for (let left = 4096; left > 0; steps++) {
    const read = Math.min(left, pace(work, true));
    work.promptTokens += read;
    work.promptTime += steps === 0 ? 5 : 0.01 + read / 20_000;
    left -= read;
  }
  expect(steps).toBeLessThan(12);
});
