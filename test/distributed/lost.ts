/**
 * Kills each of two ranks at each moment of lost-moments.ts: both must be gone within ten seconds, with a sentence that names
 * the lost one. Not part of `bun test`, which does some of them.
 *
 *   bun run lost [--executable dist/mlxlm]
 */
import { parseArgs } from "node:util";
import { fromSources, loseRank } from "./lose-rank";
import { type MomentName, moments } from "./lost-moments";

const { values } = parseArgs({ options: { executable: { type: "string" } } });
const program = values.executable === undefined ? fromSources : [values.executable];

let failed = 0;
for (const moment of Object.keys(moments) as MomentName[]) {
  for (const victim of [0, 1] as const) {
    const { code, seconds, stderr, isLeft } = await loseRank(moment, victim, program);
    const named = stderr.includes(`rank ${victim} (127.0.0.1) was ended by SIGKILL. The other ranks are ended`);
    const isRight = named && code !== 0 && !isLeft && seconds < 10;
    if (!isRight) failed++;
    const words = stderr.trim().split("\n").slice(2).join("\n       ");
    console.log(
      `${isRight ? "ok  " : "FAIL"} ${moment}, rank ${victim}: code ${code} after ${seconds.toFixed(1)} s\n       ${words}`,
    );
  }
}
process.exit(failed === 0 ? 0 : 1);
