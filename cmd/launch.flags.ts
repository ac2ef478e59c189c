/** The flags of `mlxlm launch`: those of MLX's launcher, with its defaults where they fit. */
import { flag } from "../src/cli/flags";
import { backends } from "../src/cli/launch/plan";

export const launchFlags = {
  command: flag.list("the command that each rank runs, with its flags", { bare: true, placeholder: "COMMAND …" }),
  hosts: flag.text("where ranks run, with commas between: IPs, or names for ssh where the backend needs no IPs", {
    default: "127.0.0.1",
  }),
  repeatHosts: flag.integer("how many ranks each host gets", { alias: ["n"], default: 1, min: 1, max: 1024 }),
  hostfile: flag.path("a JSON file with hosts, their IPs and RDMA devices, as MLX's launcher has it"),
  backend: flag.choice(
    "what connects the ranks: tcp is mlxlm's own; nccl where there are NVIDIA GPUs, else tcp, unless said",
    backends,
  ),
  env: flag.list("set a variable for the ranks; may be given several times", { placeholder: "NAME=VALUE" }),
  mpiArg: flag.list("a word for mpirun; may be given several times", { placeholder: "WORD" }),
  connectionsPerIp: flag.integer("how many connections MLX's ring makes between two IPs", { default: 1, min: 1 }),
  startingPort: flag.integer(
    "ranks listen at this port and the next ones; 32323, or free ones on this machine, unless said",
    {
      alias: ["p"],
      min: 1,
      max: 65535,
    },
  ),
  ncclPort: flag.integer("the port of the first rank, for NCCL; 12345, or a free one on this machine, unless said", {
    min: 1,
    max: 65535,
  }),
  cwd: flag.path("the working folder of the ranks; this one unless said, where a host has it", {
    placeholder: "FOLDER",
  }),
  executable: flag.path("the mlxlm of the other hosts; a copy of this one unless said"),
  check: flag.switch("test the hosts pairwise instead: versions, latency, bandwidth"),
  verbose: flag.switch("say what is started, and have the backends say more"),
};
