/** A process that was launched with others: it finds them, and makes sure that all do the same thing. */
import { version } from "../../package.json";
import { ExitCode, UserError } from "../errors";
import { isLaunched } from "../mlx/group-environment";
import { endWithParent } from "../mlx/system";
import type { Command } from "./command";

interface Member {
  version: string;
  command: string;
  words: readonly string[];
}

/**
 * Connects with the other processes of the group.
 * @throws UserError for a command that has no use for ranks, or where one does not come, or has another version, command or flags
 */
export async function joinGroup({ name, ranks }: Pick<Command, "name" | "ranks">, words: readonly string[]) {
  if (!ranks) {
    throw new UserError(`${name} runs on one process only`, {
      code: ExitCode.usage,
      hint: `Start it without mlxlm launch: mlxlm ${name} …`,
    });
  }
  endWithLauncher();
  const mx = await import("../mlx");
  const { broadcastJson, gatherJson } = await import("../mlx/group-messages");
  const { joinPeerMemory } = await import("../mlx/peer-memory");
  let group: InstanceType<typeof mx.distributed.Group>;
  try {
    group = mx.distributed.init({ strict: true });
  } catch (cause) {
    if (!(cause instanceof mx.MlxError)) throw cause;
    throw new UserError(`the processes of the group did not find each other: ${cause.message}`, {
      hint: hintFor(cause.message),
      cause,
    });
  }
  checkAlike(gatherJson<Member>(group, { version, command: name, words }));
  if (!group.sends) joinPeerMemory(group);
  // What is drawn without a seed of the user's must be the same everywhere.
  mx.random.seed(broadcastJson(group, crypto.getRandomValues(new Uint32Array(1))[0]!));
}

function hintFor(problem: string): string {
  if (problem.includes("cannot listen")) return "Take other ports: --starting-port PORT. On one machine leave it out.";
  if (problem.includes("this build")) return "Leave out --backend.";
  return "Test the hosts with mlxlm launch --check, and see that no firewall is between them.";
}

/**
 * Ends what is still under way with the other processes: steps that were begun ahead and that nobody reads. A process that
 * left before would be missed by those that are at them.
 */
export async function leaveGroup(): Promise<void> {
  const mx = await import("../mlx");
  try {
    mx.synchronize();
  } catch (error) {
    // The others have ended too: there is nobody to miss it.
    if (!(error instanceof mx.MlxError)) throw error;
  }
}

/** A rank whose launcher was killed must not go on alone, nor hold a GPU. */
function endWithLauncher(): void {
  const launcher = process.ppid;
  const look = () => {
    if (process.ppid !== launcher) process.exit(ExitCode.failure);
  };
  setInterval(look, 1000).unref();
  // It may wait for another rank for ever, and then no timer runs.
  endWithParent(3);
}

/** @throws UserError that names what differs, and where */
export function checkAlike(members: readonly Member[]): void {
  const [first] = members as [Member, ...Member[]];
  for (const [rank, member] of members.entries()) {
    if (member.version !== first.version) {
      throw differing(`mlxlm ${member.version} runs on rank ${rank}, and ${first.version} on rank 0`);
    }
    if (member.command !== first.command) {
      throw differing(`rank ${rank} runs ${member.command}, and rank 0 ${first.command}`);
    }
    const at = Array.from({ length: Math.max(member.words.length, first.words.length) }, (_, i) => i).find(
      (i) => member.words[i] !== first.words[i],
    );
    if (at === undefined) continue;
    const [theirs, ours] = [member, first].map(({ words }) => words[at] ?? "nothing");
    throw differing(`the flags differ: rank ${rank} has ${theirs} where rank 0 has ${ours}`);
  }
}

function differing(message: string): UserError {
  return new UserError(message, {
    code: ExitCode.usage,
    hint: "All processes of a group must be alike. mlxlm launch starts them so.",
  });
}

/** What the first process reads, on all of them: only it has the user's terminal, or pipe. */
export async function fromLead<T>(read: () => T | Promise<T>): Promise<T> {
  if (!isLaunched()) return await read();
  const { fromLead } = await import("../generate/ranks/from-lead");
  return await fromLead(read);
}
