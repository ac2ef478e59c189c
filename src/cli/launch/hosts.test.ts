import { describe, expect, test } from "bun:test";
import { mkdtempSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { isHere, isLoopback, listedHosts, readHostfile } from "./hosts";

const folder = mkdtempSync(join(tmpdir(), "mlxlm-hosts-"));

function fileOf(text: string): string {
  const path = join(folder, "hosts.json");
  writeFileSync(path, text);
  return path;
}

describe("a hostfile", () => {
  test("is a list, or an object with a backend and variables", async () => {
    const host = { ssh: "a", ips: ["10.0.0.1"], rdma: [null, "rdma_en2", ["rdma_en3", "rdma_en4"]] };
    expect(await readHostfile(fileOf(JSON.stringify([host, { ssh: "b" }])))).toEqual({
      hosts: [host, { ssh: "b", ips: [], rdma: [] }],
      envs: [],
    });
    expect(await readHostfile(fileOf(JSON.stringify({ backend: "jaccl", envs: ["A=1"], hosts: [host] })))).toEqual({
      hosts: [host],
      backend: "jaccl",
      envs: ["A=1"],
    });
  });

  test.each([
    "",
    "{",
    "[]",
    "3",
    "{}",
    '{"hosts":[]}',
    '[{"ips":["1.2.3.4"]}]',
    '[{"ssh":""}]',
    '[{"ssh":"-oProxyCommand=x"}]',
    '[{"ssh":"a","ips":"x"}]',
    JSON.stringify(Array.from({ length: 1025 }, () => ({ ssh: "a" }))),
  ])("%.40s is an error that names it", async (text) => {
    expect(readHostfile(fileOf(text))).rejects.toThrow(/^the hostfile .*hosts.json can't be used/);
  });

  test("that is missing is an error", async () => {
    expect(readHostfile(join(folder, "absent"))).rejects.toThrow("there is no hostfile");
  });
});

describe("--hosts", () => {
  test("has names and IPs", () => {
    expect(listedHosts("studio, localhost, 10.0.0.2").hosts).toEqual([
      { ssh: "studio", ips: [], rdma: [] },
      { ssh: "localhost", ips: ["127.0.0.1"], rdma: [] },
      { ssh: "10.0.0.2", ips: ["10.0.0.2"], rdma: [] },
    ]);
  });

  test.each(["", "a,,b", "-oProxyCommand=x"])("%j is an error", (list) => {
    expect(() => listedHosts(list)).toThrow("has a name that no host can have");
  });

  test("tells this machine from others", () => {
    const host = (ssh: string, ips: string[] = []) => ({ ssh, ips, rdma: [] });
    expect(["127.0.0.1", "localhost", hostname()].map((name) => isHere(host(name)))).toEqual([true, true, true]);
    expect(isHere(host("elsewhere"))).toBe(false);
    expect(isLoopback(host("x", ["127.0.0.1"]))).toBe(true);
    expect(isLoopback(host("x", ["10.0.0.1"]))).toBe(false);
  });
});
