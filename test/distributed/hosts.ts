/**
 * Two "hosts" on one Linux machine: network namespaces with a link between them that is slow, and a real sshd on the second.
 * For root, with iproute2 and OpenSSH; not part of `bun test`.
 *
 *   bun run hosts [--executable dist/mlxlm] [--sshd /usr/sbin/sshd] [--ssh /usr/bin/ssh] [--delay 1ms] [--rate 200mbit]
 */
import { spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";

const { values } = parseArgs({
  options: {
    executable: { type: "string", default: "dist/mlxlm" },
    sshd: { type: "string", default: "/usr/sbin/sshd" },
    ssh: { type: "string", default: "/usr/bin/ssh" },
    delay: { type: "string", default: "1ms" },
    rate: { type: "string", default: "200mbit" },
  },
});
const mlxlm = resolve(values.executable);
const folder = mkdtempSync(join(tmpdir(), "mlxlm-hosts-"));
const mark = `${process.pid}`;
const [here, there] = ["a", "b"].map((name) => `mlxlm-${name}-${mark}`) as [string, string];
const [own, other] = ["10.77.0.1", "10.77.0.2"] as const;

function run(...words: string[]): string {
  const { status, stdout, stderr, error } = spawnSync(words[0]!, words.slice(1), { encoding: "utf8" });
  if (error || status !== 0) throw new Error(`${words.join(" ")}: ${error?.message ?? stderr}`);
  return stdout;
}

function makeHosts(): void {
  const [left, right] = [`va${mark}`, `vb${mark}`];
  for (const name of [here, there]) run("ip", "netns", "add", name);
  run("ip", "link", "add", left, "netns", here, "type", "veth", "peer", "name", right, "netns", there);
  for (const [name, link, address] of [
    [here, left, own],
    [there, right, other],
  ] as const) {
    run("ip", "-n", name, "addr", "add", `${address}/24`, "dev", link);
    for (const one of [link, "lo"]) run("ip", "-n", name, "link", "set", one, "up");
    slowDown(name, link);
  }
}

/** As far as the kernel can: with delay and rate, with the rate alone, or not at all. */
function slowDown(name: string, link: string): void {
  const { delay, rate } = values;
  const ways = [
    ["netem", "delay", delay, "rate", rate],
    ["tbf", "rate", rate, "burst", "64kb", "latency", "100ms"],
  ];
  const words = (way: string[]) => ["-n", name, "qdisc", "add", "dev", link, "root", ...way];
  const taken = ways.find((way) => spawnSync("tc", words(way)).status === 0);
  console.log(`${link}: ${taken?.join(" ") ?? "the kernel has neither netem nor tbf: the link is as fast as it is"}`);
}

/** sshd on the second host, with a cache of its own; and `ssh` on PATH that gets in there. */
function startSsh() {
  for (const name of ["host", "user"]) {
    run(join(values.ssh, "../ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", join(folder, name));
  }
  const config = {
    Port: "22",
    ListenAddress: other,
    HostKey: join(folder, "host"),
    AuthorizedKeysFile: join(folder, "user.pub"),
    PidFile: "none",
    StrictModes: "no",
    PermitRootLogin: "yes",
    SetEnv: `XDG_CACHE_HOME=${join(folder, "cache")} HF_HOME=${join(folder, "hf")}`,
  };
  writeFileSync(
    join(folder, "sshd_config"),
    Object.entries(config)
      .map(([name, value]) => `${name} ${value}\n`)
      .join(""),
  );
  const bin = join(folder, "bin");
  mkdirSync(bin);
  const options = `-F none -i ${join(folder, "user")} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR`;
  writeFileSync(join(bin, "ssh"), `#!/bin/sh\nexec ${values.ssh} ${options} "$@"\n`);
  chmodSync(join(bin, "ssh"), 0o755);
  // sshd wants a user of its own and a folder: both are made where only it sees them.
  writeFileSync(
    join(folder, "passwd"),
    `${run("cat", "/etc/passwd").trim()}\nsshd:x:65532:65534::/run/sshd:/usr/sbin/nologin\n`,
  );
  const script = `mount --bind ${folder}/passwd /etc/passwd && mkdir -p /run/sshd && exec ${values.sshd} -D -e -f ${folder}/sshd_config`;
  const daemon = Bun.spawn(["ip", "netns", "exec", there, "unshare", "-m", "sh", "-c", script], {
    stdout: "ignore",
    stderr: Bun.file(join(folder, "sshd.log")),
  });
  return { daemon, path: `${bin}:${process.env.PATH}` };
}

interface Outcome {
  code: number;
  out: string;
  problems: string;
}

let path = "";

function start(...words: string[]) {
  return Bun.spawn(["ip", "netns", "exec", here, mlxlm, ...words], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
    env: { ...process.env, PATH: path },
  });
}

async function end(...words: string[]): Promise<Outcome> {
  const child = start(...words);
  const [out, problems, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { code, out, problems };
}

const on2 = (...words: string[]) => end("launch", "--hosts", `${own},${other}`, ...words);

let failed = 0;

function report(what: string, isRight: boolean, facts: string): void {
  if (!isRight) failed++;
  console.log(`${isRight ? "ok  " : "FAIL"} ${what}: ${facts.trim().replaceAll("\n", "\n       ")}`);
}

const endless = ["benchmark", "--model", "demo", "-p", "64", "-g", "1000000"];

/** Does something to a run of two hosts; both must end within ten seconds of it. */
async function lose(what: string, act: () => void, mend = () => {}): Promise<void> {
  const child = start("launch", "--hosts", `${own},${other}`, ...endless);
  const problems = child.stderr.text();
  for await (const chunk of child.stdout) if (new TextDecoder().decode(chunk).includes("warmup")) break;
  await Bun.sleep(1000);
  const began = performance.now();
  act();
  const code = await child.exited;
  const seconds = (performance.now() - began) / 1000;
  mend();
  await Bun.sleep(seconds > 8 ? 1000 : 9000 - seconds * 1000);
  const left = remote();
  report(
    what,
    code !== 0 && seconds < 10.5 && left === 0,
    `code ${code} after ${seconds.toFixed(1)} s, ${left} processes left\n${await problems}`,
  );
}

/** Processes of mlxlm on the second host. */
const remotePids = () =>
  run("ip", "netns", "pids", there)
    .trim()
    .split("\n")
    .filter((pid) => pid !== "" && run("ps", "-o", "args=", "-p", pid).includes(" benchmark "));
const remote = () => remotePids().filter((pid) => !run("ps", "-o", "args=", "-p", pid).startsWith("sh")).length;

let daemon: Bun.Subprocess | undefined;
try {
  makeHosts();
  const ssh = startSsh();
  daemon = ssh.daemon;
  path = ssh.path;
  await Bun.sleep(1000);

  const question = ["generate", "--model", "demo", "--prompt", "What is 27 + 58?", "--temp", "0", "--json"];
  const alone = JSON.parse((await end(...question)).out).text;
  const first = await on2(...question);
  report(
    "the executable is copied, the answer is one host's",
    first.out.includes(JSON.stringify(alone)),
    first.problems,
  );
  const second = await on2(...question, "--pipeline");
  report(
    "it is copied once; a pipeline says the same",
    second.out.includes(JSON.stringify(alone)) && second.problems === "",
    second.problems,
  );
  const check = await on2("--check");
  report("--check measures the link", check.code === 0, check.out);

  const model = join(folder, "model");
  mkdirSync(model);
  writeFileSync(join(model, "weights"), new Uint8Array(20e6));
  const shared = await on2("share", "--path", model, "--dst", join(folder, "copy"), "--json");
  const there_ = readdirSync(join(folder, "copy"));
  report("share", there_.join() === "weights", shared.out + shared.problems);

  await lose("kill -9 of the other host's rank", () => {
    for (const pid of remotePids()) process.kill(Number(pid), "SIGKILL");
  });
  const link = `vb${mark}`;
  await lose(
    "the link is cut",
    () => void run("ip", "-n", there, "link", "set", link, "down"),
    () => void run("ip", "-n", there, "link", "set", link, "up"),
  );
} finally {
  daemon?.kill("SIGKILL");
  for (const name of [here, there]) {
    for (const pid of spawnSync("ip", ["netns", "pids", name], { encoding: "utf8" }).stdout.trim().split("\n")) {
      if (pid !== "") process.kill(Number(pid), "SIGKILL");
    }
    spawnSync("ip", ["netns", "delete", name]);
  }
  if (failed === 0) rmSync(folder, { recursive: true, force: true });
  else console.log(`see ${folder}`);
}
process.exit(failed === 0 ? 0 : 1);
