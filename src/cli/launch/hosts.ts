/** Where ranks run: a hostfile, or a list of hosts. The forms are those of MLX's launcher. */
import { isIP } from "node:net";
import { hostname, networkInterfaces } from "node:os";
import { z } from "zod";
import { ExitCode, UserError } from "../../errors";
import { readText } from "../../json-file";

export interface Host {
  /** What ssh takes. */
  ssh: string;
  /** Its addresses, by which the others reach it. */
  ips: readonly string[];
  /** Its RDMA devices to each of the hosts, for JACCL; null to itself. */
  rdma: readonly (string | string[] | null)[];
}

export interface Hosts {
  hosts: readonly Host[];
  backend?: string;
  /** NAME=VALUE */
  envs: readonly string[];
}

/** ssh takes what begins with a dash for an option. */
const isName = (ssh: string) => ssh !== "" && !ssh.startsWith("-");

const HostEntry = z.object({
  ssh: z.string().refine(isName),
  ips: z.array(z.string().min(1)).default([]),
  rdma: z.array(z.union([z.string(), z.array(z.string()), z.null()])).default([]),
});

/** As many as ranks may be. */
const Entries = z.array(HostEntry).min(1).max(1024);

const Hostfile = z.union([
  Entries,
  z.object({
    backend: z.string().default(""),
    envs: z.array(z.string()).default([]),
    hosts: Entries,
  }),
]);

/** @throws UserError for a file that is missing or has another form */
export async function readHostfile(path: string): Promise<Hosts> {
  const text = await readText(path);
  if (text === null) {
    throw new UserError(`there is no hostfile ${path}`, {
      code: ExitCode.notFound,
      hint: `It is a JSON file: ${hostfileExample}`,
    });
  }
  let content: unknown;
  try {
    content = JSON.parse(text);
  } catch {
    throw wrongFile(path, "it is not JSON");
  }
  const read = Hostfile.safeParse(content);
  if (!read.success)
    throw wrongFile(path, 'it must hold a list of at most 1,024 hosts, each with at least "ssh", a name');
  const { data } = read;
  if (Array.isArray(data)) return { hosts: data, envs: [] };
  return { hosts: data.hosts, backend: data.backend || undefined, envs: data.envs };
}

export const hostfileExample = '[{"ssh": "studio1", "ips": ["10.0.0.1"]}, {"ssh": "studio2", "ips": ["10.0.0.2"]}]';

function wrongFile(path: string, problem: string): UserError {
  return new UserError(`the hostfile ${path} can't be used: ${problem}`, {
    code: ExitCode.usage,
    hint: `For example: ${hostfileExample}`,
  });
}

/** Hosts from "a,b,c". An IP is its own address, and localhost has one. @throws UserError for an empty name */
export function listedHosts(list: string): Hosts {
  const hosts = list.split(",").map((name) => {
    const ssh = name.trim();
    if (!isName(ssh)) {
      throw new UserError(`--hosts ${JSON.stringify(list)} has a name that no host can have`, {
        code: ExitCode.usage,
        hint: "Names or IPs with commas between them: --hosts 10.0.0.1,10.0.0.2",
      });
    }
    const ip = ssh === "localhost" ? "127.0.0.1" : ssh;
    return { ssh, ips: isIP(ip) ? [ip] : [], rdma: [] };
  });
  return { hosts, envs: [] };
}

const loopback = ["127.0.0.1", "localhost", "::1"];

/** Whether a host is this machine, by its name or one of its addresses, so that no ssh is needed. */
export const isHere = ({ ssh }: Host) => loopback.includes(ssh) || ssh === hostname() || isOwnAddress(ssh);

const isOwnAddress = (ip: string) =>
  Object.values(networkInterfaces()).some((addresses) => addresses?.some(({ address }) => address === ip));

/** Whether nobody but this machine can reach a host's first address. */
export const isLoopback = ({ ips }: Host) => ips.length > 0 && ips.every((ip) => ip === "::1" || ip.startsWith("127."));
