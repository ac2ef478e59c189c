import { describe, expect, test } from "bun:test";
import type { Host } from "./hosts";
import { mpiWords } from "./mpi";
import { type Backend, graphOperationsFor, plan } from "./plan";

const options = {
  connectionsPerIp: 1,
  key: "k",
  verbose: false,
  cores: 8,
  freePorts: (count: number) => Array.from({ length: count }, (_, i) => 5000 + i),
};

const host = (ssh: string, ips: string[] = [], rdma: Host["rdma"] = []): Host => ({ ssh, ips, rdma });
const here = host("127.0.0.1", ["127.0.0.1"]);
const far = [host("a", ["10.0.0.1"]), host("b", ["10.0.0.2"])];

const planned = (hosts: readonly Host[], backend: Backend, more: object = {}) =>
  plan(hosts, { ...options, backend, ...more });

describe("what ranks are started with", () => {
  test("on this machine: free ports, and a share of the cores", () => {
    const ranks = planned([here, here], "tcp");
    expect(ranks.map(({ env }) => env)).toEqual([
      { MLX_RANK: "0", MLXLM_DISTRIBUTED: "tcp", MLXLM_GROUP_KEY: "k", MLXLM_THREADS: "4" },
      { MLX_RANK: "1", MLXLM_DISTRIBUTED: "tcp", MLXLM_GROUP_KEY: "k", MLXLM_THREADS: "4" },
    ]);
    expect(JSON.parse(ranks[1]!.files.MLX_HOSTFILE!)).toEqual([["127.0.0.1:5000"], ["127.0.0.1:5001"]]);
  });

  test("on other machines: ports from 32323, for each connection", () => {
    const [first] = planned(far, "ring", { connectionsPerIp: 2 });
    expect(JSON.parse(first!.files.MLX_HOSTFILE!)).toEqual([
      ["10.0.0.1:32323", "10.0.0.1:32324"],
      ["10.0.0.2:32325", "10.0.0.2:32326"],
    ]);
    expect(first!.env.MLXLM_THREADS).toBeUndefined();
  });

  test("for NCCL: the first rank's address, and a GPU for each rank", () => {
    const ranks = planned(
      far.flatMap((one) => [one, one]),
      "nccl",
    );
    expect(ranks.map(({ env }) => env.CUDA_VISIBLE_DEVICES)).toEqual(["0", "1", "0", "1"]);
    expect(ranks[3]!.env).toMatchObject({ NCCL_HOST_IP: "10.0.0.1", NCCL_PORT: "12345", MLX_WORLD_SIZE: "4" });
    expect(ranks[3]!.env.NCCL_SOCKET_IFNAME).toBeUndefined();
  });

  test("on GPUs: small CUDA graphs, but for training", () => {
    const operations = (command: string[]) =>
      planned([here, here], "nccl", { graphOperations: graphOperationsFor(command) })[1]!.env.MLX_MAX_OPS_PER_BUFFER;
    expect(operations(["generate", "--model", "demo"])).toBe("20");
    expect(operations(["lora", "--train"])).toBeUndefined();
    expect(planned([here], "tcp", { graphOperations: "20" })[0]!.env.MLX_MAX_OPS_PER_BUFFER).toBeUndefined();
  });

  test("for NCCL on this machine: the GPUs that the user leaves, and the loopback", () => {
    const ranks = planned([here, here], "nccl", { gpus: "3,1,0" });
    expect(ranks.map(({ env }) => env.CUDA_VISIBLE_DEVICES)).toEqual(["3", "1"]);
    expect(ranks[1]!.env).toMatchObject({ NCCL_HOST_IP: "127.0.0.1", NCCL_PORT: "5000", NCCL_SOCKET_IFNAME: "=lo" });
    expect(planned([here, here], "nccl", { ncclNetwork: "eth0" })[0]!.env.NCCL_SOCKET_IFNAME).toBeUndefined();
    expect(planned([here], "nccl", { ncclPort: 777 })[0]!.env.NCCL_PORT).toBe("777");
    expect(() => planned([here, here], "nccl", { gpus: "3" })).toThrow(
      "CUDA_VISIBLE_DEVICES=3 has no GPU for each of the 2 ranks of this machine",
    );
  });

  test("for JACCL: a coordinator and the devices", () => {
    const hosts = [host("a", ["10.0.0.1"], [null, "en2"]), host("b", [], ["en2", null])];
    const [first] = planned(hosts, "jaccl-ring");
    expect(first!.env).toMatchObject({
      MLXLM_DISTRIBUTED: "jaccl",
      MLX_JACCL_COORDINATOR: "10.0.0.1:32323",
      MLX_JACCL_RING: "1",
    });
    expect(JSON.parse(first!.files.MLX_IBV_DEVICES!)).toEqual([
      [null, "en2"],
      ["en2", null],
    ]);
  });

  test("for MPI: words of mpirun", () => {
    expect(mpiWords(far, ["mlxlm", "chat"], { env: { A: "1" }, args: ["--oversubscribe"] }).join(" ")).toBe(
      "mpirun -np 2 --host a,b -x MLXLM_DISTRIBUTED=mpi -x A=1 --oversubscribe mlxlm chat",
    );
  });

  test.each([
    ["tcp", [host("a"), host("b")], /needs the IP of a/],
    ["nccl", [host("a")], /needs an IP of the first host/],
    ["jaccl", far, /a has 0 RDMA devices for 2 hosts/],
    ["jaccl", [host("a", ["1.1.1.1"], ["x", "y"]), host("b", [], ["x", null])], /a has an RDMA device to itself/],
    ["jaccl", [host("a", ["1.1.1.1"], [null, null]), host("b", [], ["x", null])], /a has no RDMA device to b/],
  ] as const)("%s without what it needs is an error", (backend, hosts, message) => {
    expect(() => planned(hosts, backend)).toThrow(message);
  });
});
