/** Other machines: the command that starts a rank there, and the executable that it runs. */
import { createReadStream, statSync } from "node:fs";
import { UserError } from "../../errors";
import type { PlannedRank } from "./plan";

/** A word for sh. */
export function quoted(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`;
}

/** ssh that asks no questions: a password cannot be typed for several hosts at once. */
export const sshWords = (host: string, script: string): string[] => [
  "ssh",
  "-T",
  ...["-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=2", "-o", "ServerAliveCountMax=4"],
  host,
  script,
];

/**
 * The script of a rank on another machine. It ends where ssh's connection ends: what is read from stdin is the rank's,
 * or, for all but the first, only a sign that the connection stands.
 */
export function rankScript({ rank, env, files }: PlannedRank, command: readonly string[], cwd: string): string {
  const lines = [
    `cd ${quoted(cwd)} 2>/dev/null || cd`,
    ...Object.entries(env).map(([name, value]) => `export ${name}=${quoted(value)}`),
    ...Object.entries(files).flatMap(([name, text]) => [
      `${name}=$(mktemp) && printf %s ${quoted(text)} > "$${name}" && export ${name}`,
    ]),
    "exec 3<&0",
    `${command.map(quoted).join(" ")} ${rank === 0 ? "<&3" : "</dev/null"} &`,
    "pid=$!",
    "trap 'kill -INT $pid 2>/dev/null' INT",
    // A rank that waits for a GPU, which waits for a lost rank, hears no signal but the last.
    "end() { kill $pid 2>/dev/null; sleep 4; kill -9 $pid 2>/dev/null; }",
    "trap end TERM HUP",
    ...(rank === 0 ? [] : ["(cat <&3 >/dev/null; end) & watch=$!"]),
    "wait $pid; code=$?",
    ...(rank === 0 ? [] : ["kill $watch 2>/dev/null"]),
    ...Object.keys(files).map((name) => `rm -f "$${name}"`),
    "exit $code",
  ];
  return lines.join("\n");
}

/** @throws UserError with ssh's last words */
async function onHost(host: string, script: string, stdin?: string): Promise<string> {
  const ssh = Bun.spawn(sshWords(host, script), {
    stdin: stdin === undefined ? "ignore" : new Response(createReadStream(stdin) as unknown as ReadableStream),
    stdout: "pipe",
    stderr: "pipe",
    env: { ...process.env },
  });
  const [stdout, stderr] = await Promise.all([new Response(ssh.stdout).text(), new Response(ssh.stderr).text()]);
  if ((await ssh.exited) === 0) return stdout.trim();
  const words = stderr.trim().split("\n").at(-1) || `ssh ended with ${ssh.exitCode}`;
  throw new UserError(`${host} can't be used: ${words}`, {
    hint: `Try: ssh ${host} true. It must work without a password.`,
  });
}

/** This executable, to be copied. */
export interface Executable {
  path: string;
  sha256: string;
  /** What `uname -sm` says where it runs. */
  system: string;
}

/** The SHA-256 of a file. */
export async function hashOf(path: string): Promise<string> {
  const hasher = new Bun.CryptoHasher("sha256");
  for await (const chunk of createReadStream(path)) hasher.update(chunk);
  return hasher.digest("hex");
}

const sumCommand = '{ sha256sum "$1" 2>/dev/null || shasum -a 256 "$1"; } | cut -c1-64';

/**
 * Makes sure that a host has the executable, by hash. Returns its path there.
 * @param said told of a copy
 * @throws UserError where ssh fails, the host is another system, or the copy has another hash
 */
export async function placeExecutable(
  host: string,
  { path, sha256, system }: Executable,
  said: (line: string) => void,
): Promise<string> {
  const folder = `\${XDG_CACHE_HOME:-$HOME/.cache}/mlxlm/bin/${sha256.slice(0, 16)}`;
  const asked = `uname -sm; file="${folder}/mlxlm"; echo "$file"; set -- "$file"; [ -x "$file" ] && ${sumCommand}; true`;
  const [theirs, file, found] = (await onHost(host, asked)).split("\n");
  if (theirs !== system) {
    throw new UserError(`${host} is a ${theirs}, and this mlxlm runs on ${system}`, {
      hint: "Install mlxlm there, and name it: --executable PATH",
    });
  }
  if (found === sha256) return file!;
  said(`copying mlxlm (${Math.round(statSync(path).size / 1e6)} MB) to ${host}:${file}`);
  const copy = [
    `mkdir -p "${folder}"`,
    `part="${folder}/mlxlm.$$"`,
    'cat > "$part"',
    `set -- "$part"; [ "$(${sumCommand})" = ${sha256} ] || { rm -f "$part"; echo "the copy has another hash" >&2; exit 1; }`,
    `chmod 755 "$part" && mv "$part" "${folder}/mlxlm"`,
  ];
  await onHost(host, copy.join(" && "), path);
  return file!;
}
