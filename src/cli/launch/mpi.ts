/** The command line of mpirun, which starts ranks by itself. */
import type { Host } from "./hosts";

export interface MpiOptions {
  env: Readonly<Record<string, string>>;
  /** More words for mpirun. */
  args: readonly string[];
}

export function mpiWords(hosts: readonly Host[], command: readonly string[], { env, args }: MpiOptions): string[] {
  const variables = { MLXLM_DISTRIBUTED: "mpi", ...env };
  return [
    "mpirun",
    ...["-np", `${hosts.length}`, "--host", hosts.map(({ ssh }) => ssh).join(",")],
    ...Object.entries(variables).flatMap(([name, value]) => ["-x", `${name}=${value}`]),
    ...args,
    ...command,
  ];
}
