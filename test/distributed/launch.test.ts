/** `mlxlm launch`: ranks here, and on "other hosts" by a stand-in for ssh that runs its script on this machine. */
import { afterAll, describe, expect, test } from "bun:test";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { machine, tmpdir } from "node:os";
import { join } from "node:path";
import { hashOf, placeExecutable } from "../../src/cli/launch/ssh";
import { neighbouringPorts } from "./neighbouring-ports";

const main = join(import.meta.dir, "../../cmd/main.ts");
const folder = mkdtempSync(join(tmpdir(), "mlxlm-launch-test-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function start(words: readonly string[], env: Record<string, string> = {}) {
  return Bun.spawn([process.execPath, main, "launch", ...words], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    env: { ...process.env, ...env },
  });
}

async function run(words: readonly string[], env?: Record<string, string>) {
  const child = start(words, env);
  const [out, problems, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { code, out, problems };
}

/** A program on PATH that is called as ssh is: each host has a home of its own, and "down" can't be reached. */
function standInSsh(): Record<string, string> {
  const bin = join(folder, "bin");
  mkdirSync(bin, { recursive: true });
  writeFileSync(
    join(bin, "ssh"),
    `#!/bin/sh
while [ "$1" != "\${1#-}" ]; do case "$1" in -o) shift 2;; *) shift;; esac; done
[ "$1" = down ] && { echo "ssh: connect to host down port 22: No route to host" >&2; exit 255; }
HOME="${folder}/$1"; export HOME; unset XDG_CACHE_HOME; mkdir -p "$HOME"; echo "$1" >> "${folder}/asked"
exec sh -c "$2"
`,
  );
  chmodSync(join(bin, "ssh"), 0o755);
  return { PATH: `${bin}:${process.env.PATH}` };
}

/** What other hosts have installed. */
function ownExecutable(): string {
  const path = join(folder, "own-mlxlm");
  writeFileSync(path, `#!/bin/sh\nexec ${process.execPath} ${main} "$@"\n`);
  chmodSync(path, 0o755);
  return path;
}

const prompt = ["generate", "--model", "demo", "--prompt", "What is 27 + 58?", "--temp", "0"];
const answer = "27 + 58 = 85.";

describe("ranks on this machine", () => {
  test("say once what one process says", async () => {
    const { code, out, problems } = await run(["-n", "2", ...prompt, "--json"]);
    expect(problems).toBe("");
    expect(JSON.parse(out).text).toEndWith(answer);
    expect(code).toBe(0);
  });

  test("hear what the first one reads, and may have layers instead of parts of them", async () => {
    const words = ["-n", "2", "chat", "--model", "demo", "--temp", "0", "--pipeline"];
    const child = Bun.spawn([process.execPath, main, "launch", ...words], {
      stdin: new Blob(["What is 27 + 58?\nWhat is 3 + 4?\n"]),
      stdout: "pipe",
      stderr: "pipe",
    });
    const out = await child.stdout.text();
    expect({ code: await child.exited, problems: await child.stderr.text() }).toMatchObject({ code: 0 });
    expect(out).toContain(answer);
    expect(out).toContain("3 + 4 = 7.");
  });

  test.each([[[]], [["--pipeline"]]])(
    "write a prompt's cache as one process does, and go on from it, %j",
    async (way) => {
      const file = join(folder, `cache${way.length}`);
      const cached = await run([
        "-n",
        "3",
        "cache_prompt",
        "--model",
        "demo",
        "--prompt",
        "What is 27",
        ...way,
        "--prompt-cache-file",
        file,
      ]);
      expect(cached.problems).toContain("Saving...");
      const words = ["generate", "--prompt-cache-file", file, "--prompt", " + 58?", "--verbose", "False"];
      const alone = Bun.spawnSync([process.execPath, main, ...words]);
      expect(alone.stdout.toString()).toEndWith(`${answer}\n`);
      expect((await run(["-n", "3", ...words, ...way])).out).toBe(alone.stdout.toString());
    },
  );

  test("are tested pairwise", async () => {
    const { code, out } = await run(["-n", "3", "--json", "--check"]);
    const { members, pairs, sum } = JSON.parse(out);
    expect(members).toHaveLength(3);
    expect(pairs.map(({ from, to }: { from: number; to: number }) => [from, to])).toEqual([
      [0, 1],
      [0, 2],
      [1, 2],
    ]);
    for (const figures of [...pairs, sum]) {
      expect(figures.latency_us).toBeGreaterThan(0);
      expect(figures.bandwidth).toBeGreaterThan(0);
    }
    expect(code).toBe(0);
  });

  test.each([
    ["of all ranks", ["--prompt", "x", "--model", "/nowhere/at/all"], "there is no folder /nowhere/at/all"],
    ["of the first rank", ["--prompt-cache-file", "/nowhere"], "there is no prompt-cache file /nowhere.safetensors"],
  ])("end with the code of an error %s, which is said once", async (_, flags, error) => {
    const { code, problems } = await run(["-n", "3", "generate", "--model", "demo", ...flags]);
    expect(code).toBe(3);
    expect(problems.split("\n").filter((line) => line.startsWith("mlxlm: "))).toEqual([`mlxlm: ${error}`]);
    expect(problems).not.toContain("[1]");
  });

  test("take flags of all commands ahead of the command, too", async () => {
    const words = ["generate", "--model", "demo", "--prompt", "What is 27 + 58?", "--temp", "0"];
    const { out } = await run(["-n", "2", "--json", "--device", "cpu", ...words]);
    expect(JSON.parse(out)).toMatchObject({ text: expect.stringContaining(answer) });
  });

  test.each([0, 1])("end where rank %i is killed", async (victim) => {
    const child = start(["-n", "2", "--verbose", "benchmark", "--model", "demo", "-g", "100000"]);
    let said = "";
    const reader = child.stderr.getReader();
    const stdout = child.stdout.text();
    let chunk = await reader.read();
    for (; !chunk.done; chunk = await reader.read()) {
      said += new TextDecoder().decode(chunk.value);
      const pids = [...said.matchAll(/by tcp: process (\d+)/g)].map(([, pid]) => Number(pid));
      if (pids.length === 2 && said.indexOf("was ended") < 0) process.kill(pids[victim]!, "SIGKILL");
      if (pids.length === 2) break;
    }
    for (chunk = await reader.read(); !chunk.done; chunk = await reader.read()) {
      said += new TextDecoder().decode(chunk.value);
    }
    await stdout;
    expect(await child.exited).toBe(128 + 9);
    expect(said).toContain(`rank ${victim} (127.0.0.1) was ended by SIGKILL`);
    expect(said).toContain("The other ranks are ended");
  });

  test.each([
    [["-n", "2"], /launch needs a command/],
    [["-n", "2", "nonsense"], /there is no command "nonsense"/],
    [["--hosts", "10.0.0.1", "--hostfile", "hosts.json", "chat"], /--hosts and --hostfile both say/],
    [["--env", "A B", "--", "generate"], /is not NAME=VALUE/],
    [["--env", "FOO", "--", "generate"], /is not NAME=VALUE/],
    [["-n", "2", "-p", "65535", "chat"], /2 ports from 65535 on go past 65535/],
    [["-n", "2", "--cwd", "/nowhere/at/all", "chat"], /--cwd \/nowhere\/at\/all is no folder/],
    [["--hostfile", "/nowhere.json", "chat"], /It is a JSON file/],
    [["--hosts", "studio1,studio2", "--executable", "/x", "--backend", "ring", "chat"], /needs the IP of studio1/],
    [["-n", "2", "--backend", "nccl", "benchmark", "--model", "demo"], /this build of mlxlm has no nccl|finds none/],
    [["--hosts", "10.9.9.9", "chat"], /runs from its sources/],
    ...(Bun.which("mpirun")
      ? []
      : [[["-n", "2", "--backend", "mpi", "chat"], /the backend mpi needs mpirun/] as const]),
    [["--nonsense", "chat"], /there is no flag --nonsense/],
  ] as const)("%j is a usage error", async (words, message) => {
    const { code, problems } = await run(words);
    expect(problems).toMatch(message);
    expect(code).not.toBe(0);
  });
});

describe("ranks on other hosts", () => {
  test("are started by ssh", async () => {
    const env = standInSsh();
    const own = ownExecutable();
    const hostfile = join(folder, "hosts.json");
    const hosts = ["127.0.0.1", "alpha"].map((ssh) => ({ ssh, ips: ["127.0.0.1"] }));
    writeFileSync(hostfile, JSON.stringify({ backend: "tcp", envs: ["MLXLM_THREADS=1"], hosts }));
    const port = `${neighbouringPorts(2)}`;
    const words = ["--hostfile", hostfile, "-p", port, "--executable", own];
    const { code, out } = await run([...words, ...prompt, "--json"], env);
    expect(JSON.parse(out).text).toEndWith(answer);
    expect(code).toBe(0);
    expect(readFileSync(join(folder, "asked"), "utf8")).toContain("alpha");
  });

  test("get a copy of the executable, once, and by its hash", async () => {
    const path = join(folder, "executable");
    writeFileSync(path, "#!/bin/sh\necho hello\n");
    const executable = { path, sha256: await hashOf(path), system: `Linux ${machine()}` };
    const said: string[] = [];
    const before = process.env.PATH;
    process.env.PATH = standInSsh().PATH;
    try {
      const there = await placeExecutable("beta", executable, (line) => said.push(line));
      expect(readFileSync(there, "utf8")).toBe(readFileSync(path, "utf8"));
      expect(await placeExecutable("beta", executable, (line) => said.push(line))).toBe(there);
      expect(said).toEqual([`copying mlxlm (0 MB) to beta:${there}`]);

      writeFileSync(there, "damaged");
      await placeExecutable("beta", executable, (line) => said.push(line));
      expect(await hashOf(there)).toBe(executable.sha256);
      expect(said).toHaveLength(2);

      const wrong = { ...executable, sha256: "0".repeat(64) };
      expect(placeExecutable("beta", wrong, () => {})).rejects.toThrow("the copy has another hash");
      expect(existsSync(join(folder, "beta/.cache/mlxlm/bin/0000000000000000/mlxlm"))).toBe(false);
      expect(placeExecutable("down", executable, () => {})).rejects.toThrow("No route to host");
      const other = { ...executable, system: "Darwin arm64" };
      expect(placeExecutable("beta", other, () => {})).rejects.toThrow("this mlxlm runs on Darwin arm64");
    } finally {
      process.env.PATH = before;
    }
  });

  test("get a folder by share", async () => {
    const env = standInSsh();
    const own = ownExecutable();
    const hosts = ["127.0.0.1", "beta"].map((ssh) => ({ ssh, ips: ["127.0.0.1"] }));
    const [hostfile, source, target] = ["share.json", "some-model", "beta-model"].map((name) => join(folder, name));
    writeFileSync(hostfile!, JSON.stringify(hosts));
    mkdirSync(source!);
    writeFileSync(join(source!, "config.json"), "{}");
    const words = ["--hostfile", hostfile!, "-p", `${neighbouringPorts(2)}`, "--executable", own];
    const { out } = await run([...words, "share", "--path", source!, "--dst", target!, "--json"], env);
    expect(JSON.parse(out)).toMatchObject({ source: 0, files: 1, bytes: 2, places: [source, target], had: [] });
    expect(readFileSync(join(target!, "config.json"), "utf8")).toBe("{}");
  });
});
