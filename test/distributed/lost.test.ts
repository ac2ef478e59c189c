/** A rank that is killed ends the other, whatever they do. All moments: bun run lost */
import { expect, test } from "bun:test";
import { loseRank } from "./lose-rank";

test.each([
  ["start", 1],
  ["handshake", 0],
  ["download", 1],
  ["between answers", 0],
  ["saving", 1],
  ["idle server", 1],
] as const)(
  "%s, rank %i",
  async (moment, victim) => {
    const { code, seconds, stderr, isLeft } = await loseRank(moment, victim);
    expect(stderr).toContain(`rank ${victim} (127.0.0.1) was ended by SIGKILL. The other ranks are ended`);
    expect({ code, isLeft, inTime: seconds < 10 }).toEqual({ code: 128 + 9, isLeft: false, inTime: true });
  },
  30_000,
);
