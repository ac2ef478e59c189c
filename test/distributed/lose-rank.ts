/** Two ranks under `mlxlm launch`, one of which is killed at a moment; what becomes of the other. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Moment, type MomentName, moments } from "./lost-moments";

/** The program that runs from its sources. */
export const fromSources = [process.execPath, join(import.meta.dir, "../../cmd/main.ts")];

export interface Loss {
  code: number;
  /** From the kill to the end of all. */
  seconds: number;
  stderr: string;
  /** Whether a rank outlived the launcher. */
  isLeft: boolean;
}

/** What a stream has said so far, and who waits for some text. */
function listener(stream: ReadableStream<Uint8Array>) {
  let said = "";
  const waiting: (() => void)[] = [];
  const wake = () => {
    for (const each of waiting) each();
  };
  const ended = (async () => {
    const decoder = new TextDecoder();
    for await (const chunk of stream) {
      said += decoder.decode(chunk, { stream: true });
      wake();
    }
    return said;
  })();
  void ended.finally(wake);
  let isOver = false;
  void ended.finally(() => {
    isOver = true;
  });
  const says = (text: string | RegExp) =>
    new Promise<RegExpExecArray>((resolve, reject) => {
      const pattern = typeof text === "string" ? new RegExp(RegExp.escape(text)) : text;
      const look = () => {
        const found = pattern.exec(said);
        if (found) resolve(found);
        else if (isOver) reject(new Error(`it ended, and did not say ${text}:\n${said}`));
      };
      waiting.push(look);
      look();
    });
  return { says, ended };
}

/** @param program the words that start mlxlm */
export async function loseRank(
  name: MomentName,
  victim: 0 | 1,
  program: readonly string[] = fromSources,
): Promise<Loss> {
  const folder = mkdtempSync(join(tmpdir(), "mlxlm-lost-"));
  const moment: Moment = moments[name](folder);
  const words = ["launch", "-n", "2", "--verbose", ...(moment.launch ?? []), ...moment.words];
  const child = Bun.spawn([...program, ...words], {
    stdin: "pipe",
    stdout: "pipe",
    stderr: "pipe",
    env: { ...process.env, MLXLM_THREADS: "1", ...moment.env },
  });
  const [out, problems] = [listener(child.stdout), listener(child.stderr)];
  try {
    const pids = (await Promise.all([0, 1].map(async (rank) => Number((await problems.says(startOf(rank)))[1])))) as [
      number,
      number,
    ];
    const tell = (text: string) => {
      child.stdin.write(text);
      child.stdin.flush();
    };
    await moment.comes({ pids, victim, says: out.says, tell });
    const began = performance.now();
    process.kill(pids[victim], "SIGKILL");
    const code = await child.exited;
    const seconds = (performance.now() - began) / 1000;
    return { code, seconds, stderr: await problems.ended, isLeft: pids.some(isAlive) };
  } finally {
    child.kill("SIGKILL");
    moment.end?.();
    rmSync(folder, { recursive: true, force: true });
  }
}

const startOf = (rank: number) => new RegExp(`rank ${rank} on 127\\.0\\.0\\.1 by tcp: process (\\d+)`);

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}
