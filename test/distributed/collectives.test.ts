/** Collectives between processes: mlxlm's TCP connections and MLX's ring give the same. */
import { describe, expect, test } from "bun:test";
import { freePorts } from "../../src/cli/launch/ports";
import { runRanks, startRanks } from "./ranks";

interface Results {
  rank: number;
  size: number;
  scattered: number[] | null;
  split: { rank: number; size: number; sum: number[] } | null;
  [name: string]: unknown;
}

describe.each([
  ["tcp", 2],
  ["tcp", 4],
  ["ring", 2],
] as const)("%s, %i processes", (backend, size) => {
  test("sums, maxima, gathers, messages and gradients", async () => {
    const ranks = Array.from({ length: size }, (_, rank) => rank);
    const triangle = (size * (size + 1)) / 2;
    const results = await runRanks<Results>("collectives-rank.ts", size, { backend });
    for (const [rank, result] of results.entries()) {
      expect(result).toMatchObject({
        rank,
        size,
        sum: [triangle, size - triangle, size / 2],
        max: [size, 0, 0.5],
        min: [1, 1 - size, 0.5],
        sums: Array.from({ length: 6 }, () => [triangle, triangle]),
        gathered: ranks.map((other) => [other + 1, 0 - other, 0.5]),
        longSum: 0,
        received: Array.from({ length: 4 }, () => (rank + size - 1) % size),
        gradient: [2 * triangle * (rank + 1), 2 * triangle * (rank + 1)],
        staged: Array.from({ length: 2 }, () => [1, 0.5].map((x) => [ranks.reduce((sum, one) => 2 * sum + one, x)])),
        moments: [
          [size, triangle - size],
          [triangle - size, ranks.reduce((sum, one) => sum + one * one, 0)],
        ],
        leaked: [0, 0],
      });
      if (backend !== "tcp") continue;
      expect(result.scattered).toEqual([2 * rank * triangle, (2 * rank + 1) * triangle]);
      const half = ranks.filter((other) => other % 2 === rank % 2);
      expect(result.split).toEqual({
        rank: half.toReversed().indexOf(rank),
        size: half.length,
        sum: [half.reduce((a, b) => a + b, 0)],
      });
    }
  });
});

describe("a rank that is lost", () => {
  test.each([0, 1, 2])("rank %i of 3, killed between and within collectives", async (victim) => {
    const ranks = startRanks("lost-rank.ts", 3, { args: [`${victim}`] });
    const ends = await Promise.all(ranks.map(({ ended }) => ended));
    expect(ends[victim]!.signal).toBe("SIGKILL");
    for (const [rank, { code, stdout }] of ends.entries()) {
      if (rank === victim) continue;
      expect(stdout).toContain(`the connection to rank ${victim} (127.0.0.1:`);
      expect(stdout).toContain("again: the connection to rank");
      expect(code).toBe(0);
    }
  });

  test("that never comes is named", async () => {
    const [first] = startRanks("absent-rank.ts", 2);
    const { stdout } = await first!.ended;
    expect(stdout).toMatch(/^rank 1 \(127\.0\.0\.1:\d+\) did not come to 127\.0\.0\.1:\d+$/m);
  });

  test("at another step is an error on both", async () => {
    const ends = await Promise.all(startRanks("steps-rank.ts", 2).map(({ ended }) => ended));
    for (const { stdout } of ends) expect(stdout).toMatch(/is at another step|was lost/);
    expect(ends.map(({ stdout }) => stdout).join()).toMatch(/it sends \d+ bytes where \d+ are expected/);
  });
});

describe("strangers", () => {
  const member = (rank: number, ports: readonly number[], key: string) =>
    startRanks("stranger-rank.ts", 1, { args: [`${rank}`, `${ports}`, key] })[0]!.ended;

  test("are turned away", async () => {
    const [port, friends, strangers] = freePorts(3) as [number, number, number];
    const ends = [
      member(0, [port, friends], "right"),
      member(1, [port, strangers], "wrong"),
      member(1, [port, friends], "right"),
    ];
    const [first, stranger, friend] = (await Promise.all(ends)).map(({ stdout }) => stdout.trim());
    expect([first, friend]).toEqual(["[3,3]", "[3,3]"]);
    // Where the group is whole already, nobody answers any more.
    expect(stranger).toMatch(/is not rank 0 of this group|rank 0 did not answer/);
  });

  test("who say nothing hold up nobody", async () => {
    const ports = freePorts(2);
    const first = member(0, ports, "right");
    const silent = await Promise.all(Array.from({ length: 100 }, () => connected(ports[0]!)));
    const friend = member(1, ports, "right");
    expect((await Promise.all([first, friend])).map(({ stdout }) => stdout.trim())).toEqual(["[3,3]", "[3,3]"]);
    for (const socket of silent) socket.end();
  });
});

/** A connection to this port, once somebody listens there. */
async function connected(port: number): Promise<Bun.Socket> {
  while (true) {
    try {
      return await Bun.connect({ hostname: "127.0.0.1", port, socket: { data() {} } });
    } catch {
      await Bun.sleep(20);
    }
  }
}

test("a rank may compute for longer than a host may be silent, while another sends to it", async () => {
  const cases = ["sum", "message", "messages"];
  const results = await Promise.all(cases.map((name) => runRanks("slow-rank.ts", 2, { args: ["10000", name] })));
  expect(results).toEqual(cases.map(() => [true, true]));
});
