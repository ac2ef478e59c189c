/** Two generators that make the same steps, as two processes do, one behind the other: what the first says is replayed. */
import { expect, test } from "bun:test";
import { tinyModel } from "../../../test/tiny-model";
import * as mx from "../../mlx";
import type { Cache } from "../../models";
import { makeLogitsProcessors } from "../../sample";
import { type BatchEvent, BatchGenerator, BatchStepper, type Joining, type Lead, type StepPlan } from ".";

const prompt = (length: number, seed = 0) => Array.from({ length }, (_, i) => (i * i * 7 + seed * 31 + i + 5) % 97);

const offsetsOf = (cache: readonly Cache[]) => cache.map((layer) => (layer as Cache & { offset: number }).offset);

/** What becomes of events, and the caches in them. */
function seen(events: readonly BatchEvent[]): unknown[] {
  return events.flatMap((event) => {
    if (event.type !== "token") return [];
    event.logprobs?.dispose();
    const held = event.cache ? offsetsOf(event.cache) : null;
    for (const layer of event.cache ?? []) layer.dispose();
    return [[event.id, event.token, held]];
  });
}

test("the other one gets the first one's tokens, ends and caches, though it draws by itself", async () => {
  const model = await tinyModel();
  const changes: (() => void)[] = [];
  let plan: StepPlan | null = null;
  const said: unknown[] = [];
  const lead: Lead = {
    inTurn: async (step) => step(),
    joins: (sequence: Joining) => void changes.push(() => void other.add(sequence)),
    leaves: (ids) => void changes.push(() => other.remove(ids)),
    copied(id, cache) {
      const offsets = offsetsOf(cache);
      changes.push(() => {
        const copy = other.extract(id)!.cache;
        expect(offsetsOf(copy)).toEqual(offsets);
        for (const layer of copy) layer.dispose();
      });
    },
    kept() {},
    begins(told) {
      plan = told;
    },
    failed() {},
  };
  const say = <T>(value: T): T => {
    said.push(structuredClone(value));
    return value;
  };
  const heard = <T>() => said.shift() as T;
  const first = new BatchGenerator(model, {
    prefillStepSize: 4,
    promptPace: () => 6,
    lockstep: {
      lead,
      share: (tokens) => {
        say([...(tokens.toArray() as Uint32Array)]);
        return tokens;
      },
      told: say,
    },
  });
  const other = new BatchGenerator(model, {
    prefillStepSize: 4,
    promptPace: (_, isAnswering) => plan!.pace[isAnswering ? 0 : 1] ?? Number.POSITIVE_INFINITY,
    lockstep: { plan: () => plan!, share: () => mx.array(heard<number[]>(), "uint32"), told: () => heard() },
  });
  /** A step of both. */
  const step = () => {
    const ours = first.step();
    for (const change of changes.splice(0)) change();
    const theirs = other.step();
    expect(said).toEqual([]);
    const both = [seen(ours), seen(theirs)];
    expect(both[1]).toEqual(both[0]);
    expect(other.size).toBe(first.size);
    return both[0]!;
  };

  const logitsProcessors = makeLogitsProcessors({ logitBias: { 11: 100 } });
  first.add({ prompt: prompt(9), maxTokens: 6, keepCache: true, logitsProcessors, boundaries: [3] });
  const stopped = first.add({ prompt: prompt(3, 1), maxTokens: 30, stop: [[11]], logitsProcessors, keepCache: true });
  const all = [...step(), ...step()];
  const long = first.add({ prompt: prompt(14, 2), maxTokens: 30 });
  for (let i = 0; i < 6; i++) all.push(...step());
  for (const layer of first.extract(long)!.cache) layer.dispose();
  first.remove([long]);
  first.add({ prompt: prompt(2, 3), maxTokens: 2, keepCache: true });
  while (first.size > 0) all.push(...step());
  expect(all).toContainEqual([stopped, 11, [4, 4]]);
  expect(all.filter((event) => (event as [number])[0] === long).length).toBeGreaterThan(0);
  first.dispose();
  other.dispose();
  model.dispose();
});

test("a step that fails on the first one is told to whoever runs it, and fails all answers", async () => {
  const model = await tinyModel();
  const failures: unknown[] = [];
  const lead: Lead = {
    inTurn: async (step) => step(),
    joins() {},
    leaves() {},
    copied() {},
    kept() {},
    begins() {
      throw new Error("the line is dead");
    },
    failed: (error) => void failures.push((error as Error).message),
  };
  const stepper = new BatchStepper(model, { lockstep: { lead, share: (tokens) => tokens, told: (own) => own } });
  const answered = async () => {
    for await (const _ of stepper.steps({ prompt: prompt(3) }));
  };
  expect(await Promise.allSettled([answered(), answered()])).toMatchObject([
    { status: "rejected", reason: { message: "the line is dead" } },
    { status: "rejected", reason: { message: "the line is dead" } },
  ]);
  expect(failures).toContain("the line is dead");
  stepper.dispose();
  model.dispose();
});
