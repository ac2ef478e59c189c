/** `mlxlm share` on a machine that is no rank: it starts itself on all hosts. */
import { ExitCode, UserError } from "../../errors";
import type { ShareRequest } from "../../hub/share";
import type { Output } from "../output";
import { launch } from ".";
import { hostfileExample, readHostfile } from "./hosts";
import type { Backend } from "./plan";

/** Those that a hostfile may name for this; files have no use for GPUs. */
const carriers: readonly string[] = ["tcp", "ring", "jaccl", "jaccl-ring"] satisfies Backend[];

/** @returns the exit code @throws UserError where no hosts are named */
export async function launchShare(
  { hostfile, ...request }: ShareRequest & { hostfile?: string },
  out: Output,
  signal?: AbortSignal,
): Promise<number> {
  const hint = `For example: ${hostfileExample}`;
  if (hostfile === undefined) {
    throw new UserError("share needs hosts to copy to", {
      code: ExitCode.usage,
      hint: "Name them in a file: --hostfile hosts.json. Or: mlxlm launch --hosts 10.0.0.1,10.0.0.2 share …",
    });
  }
  const { hosts, backend = "tcp" } = await readHostfile(hostfile);
  if (hosts.length < 2) throw new UserError(`${hostfile} names one host only`, { code: ExitCode.usage, hint });
  const words = Object.entries(request).flatMap(([name, value]) => (value === undefined ? [] : [`--${name}`, value]));
  return await launch(
    {
      command: ["share", ...words],
      hosts: "",
      repeatHosts: 1,
      hostfile,
      backend: (carriers.includes(backend) ? backend : "tcp") as Backend,
      env: [],
      mpiArg: [],
      connectionsPerIp: 1,
      check: false,
      verbose: false,
      json: out.json,
      debug: false,
    },
    out,
    signal,
  );
}
